/** clock_gettime(2), clock_settime(2), adjtimex(2). Times are milliseconds with fractions. */
import { bind, check } from "./ffi.ts";

const libc = bind({
  clock_gettime: { arguments: ["i32", "buffer"], return: "i32" },
  clock_settime: { arguments: ["i32", "buffer"], return: "i32" },
  adjtimex: { arguments: ["buffer"], return: "i32" },
});

/** linux/time.h */
const CLOCK_REALTIME = 0;
const CLOCK_MONOTONIC_RAW = 4;
const CLOCK_BOOTTIME = 7;

/** Milliseconds since the kernel started. */
export function uptimeMs(): number {
  return readClock(CLOCK_BOOTTIME);
}

/** The machine's clock, Unix milliseconds. */
export function unixMs(): number {
  return readClock(CLOCK_REALTIME);
}

/** Milliseconds since some moment by the hardware's own counter, which nothing here speeds up or slows down. */
export function rawMs(): number {
  return readClock(CLOCK_MONOTONIC_RAW);
}

/** `id`: clockid_t. Throws SystemError: EINVAL (no such clock), ENODEV (its device went away). */
export function readClock(id: number): number {
  const timespec = new BigInt64Array(2);
  check(libc.clock_gettime(id, timespec), "clock_gettime", String(id));
  const [seconds = 0n, nanoseconds = 0n] = timespec;
  return Number(seconds) * 1000 + Number(nanoseconds) / 1e6;
}

/** Set the machine's clock, Unix milliseconds. Throws SystemError (EPERM, EINVAL). */
export function setClock(unixMs: number): void {
  const seconds = Math.floor(unixMs / 1000);
  const nanoseconds = Math.floor((unixMs - seconds * 1000) * 1e6);
  const timespec = new BigInt64Array([BigInt(seconds), BigInt(nanoseconds)]);
  check(libc.clock_settime(CLOCK_REALTIME, timespec), "clock_settime");
}

/**
 * struct timex of linux/timex.h on 64-bit machines, 208 bytes; offsets of the fields that are used. `freq`: parts per
 * million in units of 2^-16. `tick`: microseconds in a tick of USER_HZ, 1/100 s.
 */
const TIMEX = { size: 208, modes: 0, freq: 16, tick: 88 } as const;
const ADJ_FREQUENCY = 0x0002;
const ADJ_TICK = 0x4000;
const TICK_US = 10_000;
/** What one microsecond more a tick is, parts per million. */
const TICK_STEP_PPM = 1e6 / TICK_US;
/** A tenth, by ticks (kernel/time/ntp.c, ntp_validate_timex), and a margin for the frequency. */
const RATE_LIMIT_PPM = 90_000;

/** The two adjtimex(2) fields for a rate: whole ticks take steps of 100 ppm, `freq` the rest, far below its 500. */
export function encodeRate(ppm: number): { readonly tick: bigint; readonly freq: bigint } {
  if (!(Math.abs(ppm) <= RATE_LIMIT_PPM)) {
    throw new RangeError(`clock rate: got ${ppm} ppm, expected at most ${RATE_LIMIT_PPM} either way`);
  }
  const steps = Math.round(ppm / TICK_STEP_PPM);
  const freq = Math.round((ppm - steps * TICK_STEP_PPM) * 65_536);
  return { tick: BigInt(TICK_US + steps), freq: BigInt(freq) };
}

/**
 * Let the machine's clock run this much faster than its counter, parts per million, negative for slower; replaces the
 * rate before. It never goes back by that. Throws SystemError (EPERM), or RangeError beyond 9 %.
 */
export function setClockRate(ppm: number): void {
  const { tick, freq } = encodeRate(ppm);
  const timex = new DataView(new ArrayBuffer(TIMEX.size));
  timex.setUint32(TIMEX.modes, ADJ_FREQUENCY | ADJ_TICK, true);
  timex.setBigInt64(TIMEX.freq, freq, true);
  timex.setBigInt64(TIMEX.tick, tick, true);
  check(libc.adjtimex(timex), "adjtimex", `${ppm} ppm`);
}
