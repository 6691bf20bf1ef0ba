/** Which reading counts, how fast the counter runs, and what bounds the hypervisor's word gives. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Filter, RATE_MAX_PPM } from "../../../init/time/filter.ts";
import { sampleOf } from "../../../init/time/reading.ts";
import { SLACK_MS, Window } from "../../../init/time/window.ts";

const UNIX = 1_800_000_000_000;

/** Asked at a raw moment, answered `there + back` later; the counter runs `ppm` slower than the clock. */
function reading(rawMs: number, [there, back]: readonly [number, number], ppm = 0, offMs = 0) {
  const unixMs = UNIX + (rawMs + there) * (1 + ppm / 1e6) + offMs;
  return { sentMs: rawMs, receivedMs: rawMs + there + back, unixMs, resolutionMs: 0 };
}

test("the middle of question and answer, and the half of what lies between", () => {
  const it = { sentMs: 10, receivedMs: 16, unixMs: 1_000, resolutionMs: 1 };
  expect(sampleOf(it)).toEqual({ rawMs: 13, unixMs: 1_000.5, errorMs: 3.5 });
});

describe("filter", () => {
  test("knows nothing of a clock that said nothing", () => expect(new Filter().at(0)).toBeUndefined());

  test("the shortest way counts", () => {
    const filter = new Filter();
    filter.add(reading(0, [40, 0]));
    filter.add(reading(100, [1, 1]));
    filter.add(reading(200, [0, 30]));
    expect(filter.at(300)?.unixMs).toBeCloseTo(UNIX + 300, 3);
  });

  test("a reading's worth fades: after long enough a worse one that is new counts more", () => {
    const filter = new Filter();
    filter.add(reading(0, [1, 1]));
    filter.add(reading(20_000, [8, 0]));
    // 1 ms, and 500 ppm of 20 s.
    expect(filter.at(20_008)?.errorMs).toBeCloseTo(4, 1);
    expect(filter.at(20_008)?.unixMs).toBeCloseTo(UNIX + 20_008 + 4, 0);
  });

  test("learns the counter's rate, and is within its own error", () => {
    const ppms = fc.double({ min: -400, max: 400, noNaN: true });
    const ways = fc.array(
      fc.tuple(fc.double({ min: 0, max: 5, noNaN: true }), fc.double({ min: 0, max: 5, noNaN: true })),
      {
        minLength: 40,
        maxLength: 100,
      },
    );
    const property = (ppm: number, delays: (readonly [number, number])[]) => {
      const filter = new Filter();
      delays.forEach((delay, index) => {
        filter.add(reading(index * 64_000, delay, ppm));
      });
      const now = delays.length * 64_000;
      const estimate = filter.at(now);
      expect(Math.abs((estimate?.ratePpm ?? 0) - ppm)).toBeLessThan(10);
      const right = UNIX + now * (1 + ppm / 1e6);
      expect(Math.abs((estimate?.unixMs ?? 0) - right)).toBeLessThanOrEqual((estimate?.errorMs ?? 0) + 0.001);
    };
    fc.assert(fc.property(ppms, ways, property), { numRuns: 200 });
  });

  test("a clock that was set meanwhile: the past is forgotten, the rate is not", () => {
    const filter = new Filter();
    for (let i = 0; i < 50; i++) filter.add(reading(i * 64_000, [0.1, 0.1], 80));
    filter.add(reading(50 * 64_000, [3, 3], 80, 150));
    const estimate = filter.at(51 * 64_000);
    expect(estimate?.unixMs).toBeCloseTo(UNIX + 51 * 64_000 * (1 + 80e-6) + 150, 0);
    expect(estimate?.ratePpm).toBeCloseTo(80, 1);
  });

  test("no rate beyond what a counter can have", () => {
    const filter = new Filter();
    for (let i = 0; i < 50; i++) filter.add(reading(i * 64_000, [1, 1], 480));
    for (let i = 50; i < 150; i++) filter.add(reading(i * 64_000, [1, 1], 480, (i - 50) * 2));
    expect(filter.at(150 * 64_000)?.ratePpm).toBe(RATE_MAX_PPM);
  });
});

describe("window", () => {
  const nsm = (sentMs: number, receivedMs: number, unixMs: number) => ({
    sentMs,
    receivedMs,
    unixMs,
    resolutionMs: 1,
  });

  test("is as wide as the document took, and the slack either way", () => {
    const window = new Window();
    expect(window.at(0)).toBeUndefined();
    window.add(nsm(1_000, 1_040, UNIX));
    expect(window.at(1_040)).toEqual({ lowMs: UNIX - SLACK_MS, highMs: UNIX + 1 + 40.02 + SLACK_MS });
  });

  test("widens by what the counter may run wrong: 300 ms either way in ten minutes", () => {
    const window = new Window();
    window.add(nsm(0, 0, UNIX));
    const { lowMs = 0, highMs = 0 } = window.at(600_000) ?? {};
    expect(UNIX + 600_000 - lowMs).toBeCloseTo(SLACK_MS + 300, 6);
    expect(highMs - UNIX - 600_000).toBeCloseTo(SLACK_MS + 300 + 1, 6);
  });

  test("a slow answer does not undo a quick one, a contradiction does", () => {
    const window = new Window();
    window.add(nsm(0, 10, UNIX));
    const before = window.at(2_000);
    window.add(nsm(1_000, 2_000, UNIX + 1_500));
    expect(window.at(2_000)).toEqual(before);
    window.add(nsm(2_000, 3_000, UNIX + 60_000));
    expect(window.at(3_000)?.lowMs).toBe(UNIX + 60_000 - SLACK_MS);
  });
});
