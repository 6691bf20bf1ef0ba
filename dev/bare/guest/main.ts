/**
 * What runs in place of an enclave: `node main.mjs`. It is started before there is an app, and runs it when descriptor 4 says
 * so. It tells the parent on descriptor 3 what init tells it, in the lines of format/control.ts, and ends when descriptor 4
 * does: then its parent is gone.
 */
import { rmSync, writeSync } from "node:fs";
import { open as openInspector } from "node:inspector";
import { Socket } from "node:net";
import { CID_PARENT, PORT_NSM } from "../../../format/abi.ts";
import { type EnclaveMessage, encodeMessage } from "../../../format/control.ts";
import { readLines } from "../../../init/dev/lines.ts";
import { runApp } from "../../../init/run.ts";
import { warmUp } from "../../../init/warm.ts";
import { EmulatedModule } from "../../../runtime/module.ts";
import { COMMANDS, type Order, TELLS } from "../order.ts";
import { readConfiguration } from "./configuration.ts";
import { bareMachine } from "./machine.ts";

/** It is packed into one file, which lies there. */
const folder = import.meta.dirname;

/** Node's own; `runApp` has it end the enclave. */
const { reallyExit } = process as unknown as { reallyExit(code: number): never };

async function main(): Promise<void> {
  const ordered = followParent();
  for (const stream of [process.stdout, process.stderr]) makeBlocking(stream);
  const machine = bareMachine(folder);
  const nsm = new EmulatedModule(() => machine.vsock.connect({ cid: CID_PARENT, port: PORT_NSM }));
  warmUp();
  const { inspect } = await ordered;
  const begin = performance.now();
  const uptimeMs = () => performance.now() - begin;
  if (inspect !== undefined) listenForDebugger(inspect);
  const configuration = readConfiguration(folder);
  tell({ type: "phase", phase: "app", uptimeMs: uptimeMs() });
  await runApp(
    { configuration, debug: false, nsm, machine },
    {
      say: (text) => tell({ type: "log", time: Date.now(), source: "init", text }),
      onReady: (ports) => tell({ type: "ready", uptimeMs: uptimeMs(), ports }),
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
  try {
    writeSync(TELLS, encodeMessage(message));
  } catch {
    // EPIPE: the parent is gone, which an app that writes a lot may notice before `followParent` does.
    vanish();
  }
}

/** The parent is gone: who would have removed the folder does not. */
function vanish(): never {
  rmSync(folder, { recursive: true, force: true });
  // The whole group, of which this process is the leader.
  process.kill(-process.pid, "SIGKILL");
  throw new Error("SIGKILL returned");
}

/** What Node queues for a full pipe is lost when the process exits. The parent always reads. */
function makeBlocking(stream: NodeJS.WriteStream): void {
  (stream as { _handle?: { setBlocking?(on: boolean): void } })._handle?.setBlocking?.(true);
}

/** Its order. A parent that goes first is the end. */
function followParent(): Promise<Order> {
  const { promise, resolve } = Promise.withResolvers<Order>();
  const socket = new Socket({ fd: COMMANDS });
  socket.on("close", vanish);
  readLines(socket, (line) => {
    // From here on the app lives by what it does itself.
    socket.unref();
    resolve(JSON.parse(line) as Order);
  });
  return promise;
}

/** `HOST:PORT`. Node says on standard error where to connect to. */
function listenForDebugger(place: string): void {
  const { hostname, port } = new URL(`tcp://${place}`);
  openInspector(Number(port), hostname.replace(/^\[|\]$/g, ""));
}

await main();
