/** Clocks that may be read, and the numbers that steer one. (That the kernel takes them: test/e2e/time.test.ts.) */
import { closeSync, openSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { encodeRate, rawMs, unixMs, uptimeMs } from "../../linux/clock.ts";
import { dynamicClockId, openPtp, readPtp } from "../../linux/ptp.ts";

test("the machine's clock is Node's; the others go on", () => {
  const before = Date.now();
  const now = unixMs();
  expect(now).toBeGreaterThanOrEqual(before);
  expect(now).toBeLessThanOrEqual(Date.now() + 1);
  for (const read of [rawMs, uptimeMs]) expect(read()).toBeLessThanOrEqual(read());
});

describe("rates", () => {
  test.each([
    [0, 10_000n, 0n],
    [1, 10_000n, 65_536n],
    [-1, 10_000n, -65_536n],
    [49.5, 10_000n, 3_244_032n],
    [100, 10_001n, 0n],
    [-100, 9_999n, 0n],
    [530, 10_005n, 1_966_080n],
    [-90_000, 9_100n, 0n],
  ])("%d ppm", (ppm, tick, freq) => expect(encodeRate(ppm)).toEqual({ tick, freq }));

  test("any: the two fields together are the rate, and each is one that the kernel takes", () => {
    const property = (ppm: number) => {
      const { tick, freq } = encodeRate(ppm);
      expect((Number(tick) - 10_000) * 100 + Number(freq) / 65_536).toBeCloseTo(ppm, 4);
      expect(Math.abs(Number(freq))).toBeLessThanOrEqual(50 * 65_536);
    };
    fc.assert(fc.property(fc.double({ min: -90_000, max: 90_000, noNaN: true }), property));
  });

  test.each([90_001, -90_001, Number.NaN, Number.POSITIVE_INFINITY])("%d is refused", (ppm) => {
    expect(() => encodeRate(ppm)).toThrow(RangeError);
  });
});

describe("/dev/ptp0", () => {
  test("a machine without one", () => expect(openPtp("/dev/ptp-that-is-not-there")).toBeUndefined());

  test("a file that is no device is an error of its own", () => {
    expect(() => openPtp("/proc/self/mem/x")).toThrow(expect.objectContaining({ code: "ENOTDIR" }));
  });

  // linux/posix-timers_types.h: CLOCKFD 3, CPUCLOCK_PERTHREAD_MASK 4.
  test.each([
    [0, -5],
    [3, -29],
    [10, -85],
  ])("descriptor %d is clock %d", (fd, id) => expect(dynamicClockId(fd)).toBe(id));

  test("a descriptor of something else tells no time", () => {
    const fd = openSync("/dev/null", "r");
    try {
      expect(() => readPtp(fd)).toThrow(expect.objectContaining({ code: "EINVAL" }));
    } finally {
      closeSync(fd);
    }
  });
});
