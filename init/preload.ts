/** What a worker thread or a child process of Node runs first: the outbound network and the rest, as in the app's main thread. */
import { routeNetwork } from "../runtime/network.ts";
import { explainMissingPrograms } from "../runtime/program.ts";
import { readConfiguration } from "./configuration.ts";

routeNetwork(readConfiguration());
explainMissingPrograms();
