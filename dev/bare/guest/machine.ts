/** A process as the app's machine: its enclave's folder is all it has. */
import { dirname, join } from "node:path";
import type { EnclaveJson } from "../../../format/enclave.ts";
import type { Machine } from "../../../init/machine.ts";
import { routeOutbound } from "../../../runtime/route.ts";
import { appDirectory, preloadFile } from "../folder.ts";
import { openBridge } from "./connection.ts";
import { routeLoopback } from "./loopback.ts";
import { StreamOutbound } from "./outbound.ts";
import { BareVsock } from "./vsock.ts";

export function bareMachine(folder: string): Machine {
  const preload = preloadFile(folder);
  return {
    vsock: new BareVsock(folder),
    route: networkOf(folder),
    directory: appDirectory(folder),
    environment: {
      // As in the enclave, but for where things are.
      PATH: dirname(process.execPath),
      HOME: join(folder, "root"),
      TMPDIR: join(folder, "tmp"),
      LANG: "C.UTF-8",
      NODE_ENV: "production",
      // cli.md of Node, NODE_OPTIONS: a value with spaces is quoted, and a backslash escapes.
      NODE_OPTIONS: `--require=${JSON.stringify(preload)}`,
    },
  };
}

/** What routes the network of this thread. Its own ports are open from here on. */
export function networkOf(folder: string): (configuration: EnclaveJson) => void {
  routeLoopback(folder);
  const outbound = new StreamOutbound(new BareVsock(folder));
  const connections = openBridge(outbound);
  return (configuration) =>
    routeOutbound(configuration, { outbound, connections, preload: preloadFile(folder) });
}
