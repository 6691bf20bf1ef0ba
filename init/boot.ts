/** The boot of an enclave, up to its app. `boot` is the boot order. */
import { readFileSync } from "node:fs";
import { inspect } from "node:util";
import type { BootPhase, ExitReason } from "../format/control.ts";
import type { EnclaveJson } from "../format/enclave.ts";
import { uptimeMs } from "../linux/clock.ts";
import { SystemError } from "../linux/ffi.ts";
import { configureIpv4, configureIpv6Loopback, setHostName } from "../linux/network.ts";
import { reapOrphans } from "../linux/reaper.ts";
import { restartMachine } from "../linux/reboot.ts";
import { explainMissingPrograms } from "../runtime/program.ts";
import { readConfiguration } from "./configuration.ts";
import { openConsole, writeConsole } from "./console.ts";
import { ENCLAVE } from "./enclave.ts";
import { sendHeartbeat } from "./heartbeat.ts";
import { Housekeeper } from "./housekeeper.ts";
import { isDebugMode } from "./mode.ts";
import { mountAll, mountRows } from "./mounts.ts";
import { openModule, readPcr0, seedEntropy } from "./nsm.ts";
import type { Place } from "./run.ts";

/** How long Node took to come here: before that, the kernel was at work. */
const startMs = performance.now();
const started = uptimeMs();
const consoleFd = openConsole();

export interface Booted extends Place {
  readonly housekeeper: Housekeeper;
}

/** Rejects where the enclave is of no use: `die` is for that. */
export async function boot(): Promise<Booted> {
  const configuration = readConfiguration();
  mountAll(mountRows(configuration), complain);
  const cmdline = readFileSync("/proc/cmdline", "utf8");
  const nsm = openModule(cmdline);
  const debug = isDebugMode(cmdline, readPcr0(nsm));
  const housekeeper = keepHouse(configuration, debug);
  phase(housekeeper, "kernel", started - startMs);
  phase(housekeeper, "init", started);
  reapOrphans();
  bringUpLoopback();
  setHostName(configuration.name);
  explainMissingPrograms();
  await sendHeartbeat();
  phase(housekeeper, "heartbeat");
  const remark = await seedEntropy(nsm);
  if (remark !== undefined) housekeeper.say(remark);
  housekeeper.awaitClock();
  return { configuration, housekeeper, nsm, debug, machine: ENCLAVE };
}

/** From here on descriptors 1 and 2 are pipes, and an end is reported. */
function keepHouse({ name, redact }: EnclaveJson, debug: boolean): Housekeeper {
  const hello = { type: "hello", protocol: 1, node: process.version, name } as const;
  return new Housekeeper({ console: consoleFd, debug, hello, redact }, die);
}

export function phase(housekeeper: Housekeeper, name: BootPhase, at = uptimeMs()): void {
  housekeeper.tell({ type: "phase", phase: name, uptimeMs: at });
}

function bringUpLoopback(): void {
  configureIpv4("lo", [127, 0, 0, 1], [255, 0, 0, 0]);
  configureIpv6Loopback("lo");
}

/** Report the end of the app and restart the machine, which ends the enclave. */
export function finish(housekeeper: Housekeeper, status: number, reason: ExitReason): never {
  housekeeper.report(status, reason);
  restartMachine();
  // reboot(2) does not return to a process that may call it.
  throw new Error("reboot returned");
}

function complain(line: string): void {
  writeConsole(consoleFd, `init: ${line}`);
}

/** The boot cannot go on: an enclave without what failed is of no use. */
export function die(error: unknown): never {
  // A system call says by itself where it failed; anything else is a bug here, and its stack says more.
  complain(`fatal: ${error instanceof SystemError ? error.message : inspect(error)}`);
  restartMachine();
  throw new Error("reboot returned");
}
