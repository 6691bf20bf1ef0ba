/** What a worker thread or a child process of Node runs first: the network, as in the app's main thread. */
import { readConfiguration } from "./configuration.ts";
import { networkOf } from "./machine.ts";

/** It is packed into one file, which lies there. */
const folder = import.meta.dirname;

networkOf(folder)(readConfiguration(folder));
