/** PID 1 of the enclave. `main` is the boot order. */
import { readFileSync } from "node:fs";
import { inspect } from "node:util";
import type { BootPhase, ExitReason } from "../format/control.ts";
import type { EnclaveJson } from "../format/enclave.ts";
import { uptimeMs } from "../linux/clock.ts";
import { SystemError } from "../linux/ffi.ts";
import { configureIpv4, configureIpv6Loopback, setHostName } from "../linux/network.ts";
import { reapOrphans } from "../linux/reaper.ts";
import { restartMachine } from "../linux/reboot.ts";
import { attestedApp } from "../runtime/attested.ts";
import { createTlsIdentity } from "../runtime/identity.ts";
import { mirrorServers } from "../runtime/listen.ts";
import { routeNetwork } from "../runtime/network.ts";
import { attestBinding } from "../runtime/nsm.ts";
import { enterEnclave } from "../runtime/place.ts";
import { Readiness } from "../runtime/ready.ts";
import { type FetchApp, isFetchApp, type Served, serveFetch } from "../runtime/serve.ts";
import { importApp, prepareProcess, provideRuntime } from "./app.ts";
import { readConfiguration } from "./configuration.ts";
import { openConsole, writeConsole } from "./console.ts";
import { failLoad, watchEnding } from "./ending.ts";
import { sendHeartbeat } from "./heartbeat.ts";
import { Housekeeper } from "./housekeeper.ts";
import { isDebugMode } from "./mode.ts";
import { MOUNTS, mountAll } from "./mounts.ts";
import { openModule, readPcr0, seedEntropy } from "./nsm.ts";
import { handleSignals } from "./signals.ts";

/** How long Node took to come here: before that, the kernel was at work. */
const startMs = performance.now();
const started = uptimeMs();
const consoleFd = openConsole();

async function main(): Promise<void> {
  mountAll(MOUNTS, complain);
  const cmdline = readFileSync("/proc/cmdline", "utf8");
  const nsm = openModule(cmdline);
  const debug = isDebugMode(cmdline, readPcr0(nsm));
  const configuration = readConfiguration();
  const housekeeper = keepHouse(configuration, debug);
  phase(housekeeper, "kernel", started - startMs);
  phase(housekeeper, "init", started);
  reapOrphans();
  bringUpLoopback();
  setHostName(configuration.name);
  await sendHeartbeat();
  phase(housekeeper, "heartbeat");
  const remark = await seedEntropy(nsm);
  if (remark !== undefined) housekeeper.say(remark);
  const readiness = watchReadiness(configuration, housekeeper);
  enterEnclave({ debug, nsm, ready: () => readiness.said() });
  await run(configuration, housekeeper, readiness);
}

/** From here on descriptors 1 and 2 are pipes, and an end is reported. */
function keepHouse({ name }: EnclaveJson, debug: boolean): Housekeeper {
  const hello = { type: "hello", protocol: 1, node: process.version, name } as const;
  return new Housekeeper({ console: consoleFd, debug, hello }, die);
}

function phase(housekeeper: Housekeeper, name: BootPhase, at = uptimeMs()): void {
  housekeeper.tell({ type: "phase", phase: name, uptimeMs: at });
}

function bringUpLoopback(): void {
  configureIpv4("lo", [127, 0, 0, 1], [255, 0, 0, 0]);
  configureIpv6Loopback("lo");
}

function watchReadiness({ ready: mode, ports }: EnclaveJson, housekeeper: Housekeeper): Readiness {
  const onReady = (listening: readonly number[]) =>
    housekeeper.tell({ type: "ready", uptimeMs: uptimeMs(), ports: listening });
  return new Readiness({ mode, ports, onReady });
}

/** Load the app and serve what it exports. Returns when it is running; the process ends when it ends. */
async function run(
  configuration: EnclaveJson,
  housekeeper: Housekeeper,
  readiness: Readiness,
): Promise<void> {
  const { ports } = configuration;
  let served: Served | undefined;
  const ending = watchEnding((status, reason) => finish(housekeeper, status, reason));
  handleSignals((status) => {
    // An app of requests has done its duty when the last one is answered.
    if (served !== undefined) void served.close().then(() => ending.end(0, "signal"));
    else ending.end(status, "signal");
  });
  mirrorServers({
    ports,
    onListening: (port) => readiness.listening(port),
    say: (line) => housekeeper.say(line),
  });
  routeNetwork(configuration);
  prepareProcess(configuration);
  provideRuntime();
  phase(housekeeper, "app");
  try {
    const app = await importApp(configuration);
    ending.loaded();
    if (isFetchApp(app)) {
      const [port] = ports;
      if (port === undefined)
        throw new Error('The app exports fetch, and "ports" is empty: no port to serve it on');
      served = await serveApp(app, port, configuration);
      readiness.listening(port);
    } else if (configuration.tls) {
      throw new Error('"tls" is true, and the app exports no fetch: nothing to serve with TLS');
    }
  } catch (error) {
    failLoad(ending, error);
  }
  readiness.evaluated();
}

/** With TLS and with the runtime's own answers, as configured. */
async function serveApp(
  app: FetchApp,
  port: number,
  { name, tls, attestation }: EnclaveJson,
): Promise<Served> {
  const onError = (error: unknown) => process.stderr.write(`${inspect(error)}\n`);
  const identity = tls ? await createTlsIdentity(name) : undefined;
  const tlsKey = identity?.spkiHash ?? null;
  const served = attestation ? attestedApp(app, { attest: attestBinding, tlsKey, onError }) : app;
  return serveFetch(served, { port, onError, tls: identity });
}

function finish(housekeeper: Housekeeper, status: number, reason: ExitReason): never {
  housekeeper.report(status, reason);
  restartMachine();
  // reboot(2) does not return to a process that may call it.
  throw new Error("reboot returned");
}

function complain(line: string): void {
  writeConsole(consoleFd, `init: ${line}`);
}

/** The boot cannot go on: an enclave without what failed is of no use. */
function die(error: unknown): never {
  // A system call says by itself where it failed; anything else is a bug here, and its stack says more.
  complain(`fatal: ${error instanceof SystemError ? error.message : inspect(error)}`);
  restartMachine();
  throw new Error("reboot returned");
}

main().catch(die);
