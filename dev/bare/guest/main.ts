/**
 * What runs in place of an enclave: `node main.mjs [HOST:PORT]`. It tells the parent on descriptor 3 what init tells it, in the
 * lines of format/control.ts, and ends when descriptor 4 does: then its parent is gone.
 */
import { rmSync, writeSync } from "node:fs";
import { open as openInspector } from "node:inspector";
import { Socket } from "node:net";
import { CID_PARENT, PORT_NSM } from "../../../format/abi.ts";
import { type EnclaveMessage, encodeMessage } from "../../../format/control.ts";
import { runApp } from "../../../init/run.ts";
import { EmulatedModule } from "../../../runtime/module.ts";
import { COMMANDS, TELLS } from "../order.ts";
import { readConfiguration } from "./configuration.ts";
import { bareMachine } from "./machine.ts";

/** It is packed into one file, which lies there. */
const folder = import.meta.dirname;
const [, , inspect] = process.argv;

/** Node's own; `runApp` has it end the enclave. */
const { reallyExit } = process as unknown as { reallyExit(code: number): never };

async function main(): Promise<void> {
  followParent();
  for (const stream of [process.stdout, process.stderr]) makeBlocking(stream);
  if (inspect !== undefined) listenForDebugger(inspect);
  const configuration = readConfiguration(folder);
  const machine = bareMachine(folder);
  const nsm = new EmulatedModule(() => machine.vsock.connect({ cid: CID_PARENT, port: PORT_NSM }));
  tell({ type: "phase", phase: "app", uptimeMs: performance.now() });
  await runApp(
    { configuration, debug: false, nsm, machine },
    {
      say: (text) => tell({ type: "log", time: Date.now(), source: "init", text }),
      onReady: (ports) => tell({ type: "ready", uptimeMs: performance.now(), ports }),
      finish(status, reason) {
        // The parent has heard standard error too, and adds the last words.
        tell({ type: "exit", status, reason, lastWords: [] });
        return reallyExit.call(process, status);
      },
    },
  );
}

/** At once: the process may end with the next instruction. */
function tell(message: EnclaveMessage): void {
  writeSync(TELLS, encodeMessage(message));
}

/** What Node queues for a full pipe is lost when the process exits. The parent always reads. */
function makeBlocking(stream: NodeJS.WriteStream): void {
  (stream as { _handle?: { setBlocking?(on: boolean): void } })._handle?.setBlocking?.(true);
}

function followParent(): void {
  const socket = new Socket({ fd: COMMANDS });
  socket.on("close", () => {
    rmSync(folder, { recursive: true, force: true });
    // The whole group, of which this process is the leader.
    process.kill(-process.pid, "SIGKILL");
  });
  // Its end is told by "close".
  socket.on("error", () => {});
  socket.resume();
  socket.unref();
}

/** `HOST:PORT`. Node says on standard error where to connect to. */
function listenForDebugger(place: string): void {
  const { hostname, port } = new URL(`tcp://${place}`);
  openInspector(Number(port), hostname.replace(/^\[|\]$/g, ""));
}

await main();
