/**
 * A process of a development image that runs one generation of the app, as PID 1 does elsewhere. It is started before it is
 * needed, so that a new generation need not wait for Node.
 */
import { readFileSync, writeSync } from "node:fs";
import { url as inspectorUrl, open as openInspector } from "node:inspector";
import { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { ExitReason } from "../../format/control.ts";
import { makeBlocking } from "../../linux/stream.ts";
import { readConfiguration } from "../configuration.ts";
import { ENCLAVE } from "../enclave.ts";
import { isDebugMode } from "../mode.ts";
import { openModule, readPcr0 } from "../nsm.ts";
import { type AppHost, runApp } from "../run.ts";
import { warmUp } from "../warm.ts";
import { Handover, shareTcpPorts } from "./handover.ts";
import { readLines } from "./lines.ts";
import { CHANNEL, type FromGeneration, SOCKETS, type ToGeneration } from "./message.ts";

/** An app that listens and goes on loading, for as long as it lives perhaps, serves from then on. */
const LISTENING_GRACE_MS = 1_000;

const reallyExit = (process as unknown as { reallyExit(code: number): never }).reallyExit;
const channel = new Socket({ fd: CHANNEL });
const begun = Promise.withResolvers<void>();
let isLoaded = false;
let isServing = false;
let ready: readonly number[] | undefined;

const sockets = new Map(process.argv.slice(2).map((port, index) => [Number(port), SOCKETS + index]));
const handover = new Handover({
  listen: ENCLAVE.vsock.listen,
  sockets,
  onFirst: () => void sleep(LISTENING_GRACE_MS).then(askForPorts),
});

// Without PID 1 there is no machine.
readLines(channel, (line) => obey(JSON.parse(line) as ToGeneration));

function obey(message: ToGeneration): void {
  switch (message.type) {
    case "begin":
      begun.resolve();
      break;
    case "serve":
      handover.serve();
      isServing = true;
      // From here on the app lives by what it does itself.
      channel.unref();
      tellServing();
      break;
    case "retire":
      handover.retire();
      tell({ type: "retired" });
      process.kill(process.pid, "SIGTERM");
      break;
    case "inspect":
      if (inspectorUrl() === undefined) openInspector(0, "127.0.0.1");
      tell({ type: "inspector", port: Number(new URL(inspectorUrl() ?? "").port) });
  }
}

/** Written at once: the next line of the app may end the process. */
function tell(message: FromGeneration): void {
  writeSync(CHANNEL, `${JSON.stringify(message)}\n`);
}

function askForPorts(): void {
  if (!isLoaded) tell({ type: "loaded" });
  isLoaded = true;
}

function tellServing(): void {
  if (isServing && ready !== undefined) tell({ type: "serving", ports: ready });
}

const host: AppHost = {
  say: (line) => tell({ type: "say", line }),
  onReady(ports) {
    ready = ports;
    tellServing();
  },
  finish(status: number, reason: ExitReason): never {
    tell({ type: "end", status, reason });
    return reallyExit.call(process, status);
  },
};

async function main(): Promise<void> {
  makeBlocking(process.stdout);
  makeBlocking(process.stderr);
  const cmdline = readFileSync("/proc/cmdline", "utf8");
  const nsm = openModule(cmdline);
  const debug = isDebugMode(cmdline, readPcr0(nsm));
  warmUp();
  await begun.promise;
  const { listen } = handover;
  const machine = { ...ENCLAVE, vsock: { ...ENCLAVE.vsock, listen } };
  shareTcpPorts();
  await runApp({ configuration: readConfiguration(), debug, nsm, machine }, host);
  askForPorts();
}

void main();
