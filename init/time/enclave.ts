/** The clock of this enclave, with all that it is steered by. */
import { readFileSync } from "node:fs";
import { rawMs, setClock, setClockRate, unixMs } from "../../linux/clock.ts";
import { openModule } from "../nsm.ts";
import { Clock } from "./clock.ts";
import { ClockKeeper, type KeeperOptions } from "./keeper.ts";
import { openPtpClock, readNsmClock } from "./sources.ts";

/**
 * 2026-11-01: before it no enclave of this release ran, so it is never that early. Set it to the day of each release, which
 * `npm run release` insists on. The EIF says when it was built too, but nobody measures that.
 */
export const FLOOR_MS = Date.UTC(2026, 10, 1);

export interface EnclaveClockOptions extends Pick<KeeperOptions, "ask"> {
  readonly say: (line: string) => void;
}

/** Opens the module for itself: one thread's connection serves no other. Throws Node's errors (EACCES). */
export function openEnclaveClock({ ask, say }: EnclaveClockOptions): { clock: Clock; keeper: ClockKeeper } {
  const machine = { rawMs, unixMs, setUnixMs: setClock, setRatePpm: setClockRate };
  const clock = new Clock({ machine, floorMs: FLOOR_MS, say });
  const module = openModule(readFileSync("/proc/cmdline", "utf8"));
  const readNsm = module && (() => readNsmClock(module, rawMs));
  const keeper = new ClockKeeper({ clock, rawMs, ask, readNsm, readPtp: openPtpClock(rawMs) });
  return { clock, keeper };
}
