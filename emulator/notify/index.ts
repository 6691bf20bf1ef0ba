/** `cloister emulate`: a command, and all that it starts, on a machine that seems to be a parent instance. */
import { CloisterError } from "../../format/errors.ts";
import type { NitroError } from "../../launcher/device.ts";
import type { NeIoctl } from "../../linux/enclaves.ts";
import { adoptOrphans } from "../../linux/process.ts";
import { reapOrphans } from "../../linux/reaper.ts";
import { CpuPool, type CpuPoolOptions } from "../cpus.ts";
import { DEFAULT_CPUS, DEFAULT_MAX_REGIONS, type EmulatedDeviceOptions, openHost } from "../device.ts";
import { Driver } from "../driver.ts";
import { startCommand } from "./command.ts";
import { Files } from "./files.ts";
import { PageChecker } from "./memory.ts";
import { Slots } from "./slots.ts";
import { Sockets } from "./sockets.ts";
import { supervise } from "./supervisor.ts";

export interface EmulateOptions extends EmulatedDeviceOptions {
  readonly env: NodeJS.ProcessEnv;
  /** Error numbers that ioctls fail with, whatever the driver says: to see what a program makes of them. */
  readonly faults?: ReadonlyMap<NeIoctl, number>;
  /** Hears of every ioctl that is refused. */
  readonly onRefusal?: (error: NitroError) => void;
  /** Is given a function that sends the command a signal. */
  readonly onSignal?: (pass: (signal: NodeJS.Signals) => void) => void;
}

/** How a command ended: its exit status, or the signal that killed it. */
export type CommandEnd = { readonly status: number } | { readonly signal: NodeJS.Signals };

/**
 * Run a command and answer its calls until it and every process that it started are gone; enclaves that they left running
 * end then. Rejects with CloisterError: E_COMMAND, E_SECCOMP, E_QEMU_MISSING, E_EMULATE_ARCH.
 */
export async function emulate(argv: readonly string[], options: EmulateOptions): Promise<CommandEnd> {
  if (process.arch !== "x64") {
    throw new CloisterError("E_EMULATE_ARCH", `this machine: got ${process.arch}, expected x64`);
  }
  const { cpus = DEFAULT_CPUS, maxMemoryRegions = DEFAULT_MAX_REGIONS, faults, onRefusal } = options;
  const host = openHost(options);
  const pages = new PageChecker();
  const driver = new Driver({
    cpus: new CpuPool(cpus),
    maxMemoryRegions,
    checkPages: (region, owner) => pages.check(region, owner),
  });
  const files = new Files(poolList(cpus));
  const slots = new Slots({
    host,
    driver,
    faults: faults ?? new Map(),
    isDevice: (identity) => files.isEnclavesDevice(identity),
    onRefusal: onRefusal ?? (() => {}),
  });
  try {
    adoptOrphans();
    reapOrphans();
    const { child, listener } = await startCommand(argv, options.env);
    const { promise: ended, resolve } = Promise.withResolvers<CommandEnd>();
    child.once("exit", (status, signal) => resolve(signal === null ? { status: status ?? 1 } : { signal }));
    options.onSignal?.((signal) => child.kill(signal));
    await supervise(listener, { files, slots, sockets: new Sockets(host.vsock) });
    return await ended;
  } finally {
    await slots.close();
    files.close();
  }
}

/** The pool's CPUs as a list of ranges, as the driver's parameter has it: `1-63,65-127`. */
function poolList({ cores, threadsPerCore, pool }: CpuPoolOptions): string {
  const ids = Array.from({ length: threadsPerCore }, (_, thread) =>
    pool.map((core) => core + thread * cores),
  );
  const ranges: [first: number, last: number][] = [];
  for (const id of ids.flat().sort((a, b) => a - b)) {
    const range = ranges.at(-1);
    if (range?.[1] === id - 1) range[1] = id;
    else ranges.push([id, id]);
  }
  return ranges.map(([first, last]) => (first === last ? String(first) : `${first}-${last}`)).join(",");
}
