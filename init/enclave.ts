/** The enclave as the app's machine. */
import { APP_DIRECTORY } from "../format/enclave.ts";
import { connectVsock, listenVsock } from "../linux/vsock.ts";
import { PRELOAD, routeNetwork } from "../runtime/network.ts";
import type { Machine } from "./machine.ts";

export const ENCLAVE: Machine = {
  vsock: { connect: connectVsock, listen: listenVsock },
  route: routeNetwork,
  directory: APP_DIRECTORY,
  // NODE_ENV: libraries show clients their stack traces without it. NODE_OPTIONS: a child process of Node has its
  // outbound network too.
  environment: {
    PATH: "/bin",
    HOME: "/root",
    LANG: "C.UTF-8",
    NODE_ENV: "production",
    NODE_OPTIONS: `--require=${PRELOAD}`,
  },
};
