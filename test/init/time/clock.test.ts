/** The clock's discipline in simulated days: honest clocks, slow ways, lies. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { SLEW_MAX_PPM } from "../../../init/time/clock.ts";
import { RATE_MAX_PPM } from "../../../init/time/filter.ts";
import { SLACK_MS } from "../../../init/time/window.ts";
import { FLOOR, HOUR, MINUTE, START, World } from "./world.ts";

const DAY = 24 * HOUR;
/** A reading of the NSM is at most ten minutes old. */
const WINDOW_MS = SLACK_MS + (10 * MINUTE * RATE_MAX_PPM) / 1e6;

/** Of the run so far: the clock never went back, and never ran faster or slower than allowed. */
function watchOrder(): (world: World) => void {
  let clockMs = 0;
  let rawMs = 0;
  return (world) => {
    const [gone, counted] = [world.clockMs - clockMs, world.rawMs - rawMs];
    if (clockMs !== 0) {
      expect(gone).toBeGreaterThanOrEqual(0);
      const most = (counted * (SLEW_MAX_PPM + RATE_MAX_PPM + 1)) / 1e6;
      expect(Math.abs(gone - counted)).toBeLessThanOrEqual(most + 0.001);
    }
    [clockMs, rawMs] = [world.clockMs, world.rawMs];
  };
}

function worst(from: number): { look: (world: World) => void; offMs: number } {
  const found = {
    offMs: 0,
    look(world: World) {
      if (world.elapsedMs >= from) found.offMs = Math.max(found.offMs, Math.abs(world.offMs));
    },
  };
  return found;
}

/** A repeatable source of numbers from 0 to 1. */
function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    // Numerical Recipes, ranqd1.
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

describe("honest clocks", () => {
  test("24 hours of drift, temperature and slow ways: right to half the ways' difference and 2 ms", async () => {
    const inputs = fc.record({
      driftPpm: fc.double({ min: -200, max: 200, noNaN: true }),
      wanderPpm: fc.double({ min: 0, max: 3, noNaN: true }),
      bootOffMs: fc.double({ min: -5_000, max: 5_000, noNaN: true }),
      there: fc.double({ min: 0.05, max: 3, noNaN: true }),
      back: fc.double({ min: 0.05, max: 3, noNaN: true }),
      jitter: fc.double({ min: 0, max: 30, noNaN: true }),
      nsmOffMs: fc.double({ min: -20, max: 20, noNaN: true }),
      seed: fc.integer(),
    });
    const property = async (it: typeof inputs extends fc.Arbitrary<infer T> ? T : never) => {
      const next = random(it.seed);
      // Most are quick, some are slow, each way by itself.
      const late = () => it.jitter * next() ** 4;
      const world = new World({
        driftPpm: (ms) => it.driftPpm + it.wanderPpm * Math.sin((ms / DAY) * 4 * Math.PI),
        bootOffMs: it.bootOffMs,
        delays: () => [it.there + late(), it.back + late()],
        nsmDelays: () => [5 + 40 * next(), 5 + 40 * next()],
        nsmOffMs: it.nsmOffMs,
      });
      const [found, order] = [worst(10 * MINUTE), watchOrder()];
      await world.run(DAY, (now) => {
        found.look(now);
        order(now);
        // What it says of itself is true.
        expect(Math.abs(now.offMs)).toBeLessThanOrEqual(
          now.clock.errorMs + Math.abs(now.clock.skewMs) + 0.01,
        );
      });
      expect(found.offMs).toBeLessThan(Math.abs(it.there - it.back) / 2 + it.jitter / 4 + 2);
      expect(world.steps.length).toBeLessThanOrEqual(1);
      expect(world.said.length).toBe(1);
    };
    await fc.assert(fc.asyncProperty(inputs, property), { numRuns: 12 });
  });

  test("without a parent, as under nitro-cli: right to half of the NSM's delay", async () => {
    const found = worst(HOUR);
    const world = await new World({
      ...{ isAlone: true, driftPpm: () => 80, bootOffMs: 900 },
      nsmDelays: () => [30, 10],
    }).run(DAY, found.look);
    expect(world.said).toEqual([
      expect.stringMatching(/^clock: set by -\d+ ms from nsm, which is right to 20\.5 ms$/),
    ]);
    expect(found.offMs).toBeLessThan(20);
  });

  test("with /dev/ptp0: right to a tenth of a millisecond, whatever else there is", async () => {
    const found = worst(MINUTE);
    const world = await new World({ hasPtp: true, driftPpm: () => -120, bootOffMs: 5_000 }).run(
      6 * HOUR,
      found.look,
    );
    expect(world.said[0]).toMatch(/from ptp/);
    expect(found.offMs).toBeLessThan(0.1);
  });

  test("a parent that comes an hour late is believed, and the clock runs to it", async () => {
    const world = new World({
      driftPpm: () => 100,
      nsmDelays: () => [100, 0],
      parent: (unixMs) => (unixMs < START + HOUR ? undefined : unixMs),
    });
    const order = watchOrder();
    await world.run(HOUR, order);
    expect(Math.abs(world.offMs)).toBeGreaterThan(30);
    await world.go(3 * HOUR, order);
    expect(Math.abs(world.offMs)).toBeLessThan(1);
  });

  test("a parent whose own clock is set anew is followed, not jumped after", async () => {
    const world = new World({ parent: (unixMs) => unixMs + (unixMs < START + HOUR ? 0 : 100) });
    const order = watchOrder();
    await world.run(HOUR + 2 * MINUTE, order);
    expect(world.offMs).toBeLessThan((2 * MINUTE * SLEW_MAX_PPM) / 1e6 + 1);
    await world.go(2 * HOUR, order);
    expect(world.offMs).toBeGreaterThan(98);
    expect(world.offMs).toBeLessThan(102);
    expect(world.steps).toEqual([]);
  });

  test("a clock that is right is not set", async () => {
    const world = await new World({ bootOffMs: 0.3 }).run(MINUTE);
    expect(world.steps).toEqual([]);
    expect(world.said).toEqual([expect.stringMatching(/not set, steered/)]);
  });

  test("nobody tells the time: the log says so, and the clock is left alone", async () => {
    const world = await new World({ isAlone: true, nsmDelays: undefined, bootOffMs: 70 }).run(HOUR);
    expect(world.said).toEqual(["clock: nobody here tells the time, it stays what the machine says"]);
    expect([world.rates, world.steps]).toEqual([[], []]);
    expect([world.clock.skewMs, world.clock.errorMs]).toEqual([0, Number.MAX_SAFE_INTEGER]);
  });
});

describe("a parent that lies", () => {
  const drift = { driftPpm: () => 60, nsmDelays: () => [20, 5] as const };
  const lies: Record<string, (unixMs: number) => number> = {
    "an hour ahead": (unixMs) => unixMs + HOUR,
    "an hour behind": (unixMs) => unixMs - HOUR,
    "ahead and behind in turn": alternate(HOUR),
    "within the bounds and beyond": alternate(300),
    "ever further ahead": (unixMs) => unixMs + (unixMs - START) / 10,
    "ever further behind": (unixMs) => unixMs - (unixMs - START) / 1000,
    "the truth for an hour, then half a second less": (unixMs) => unixMs - (unixMs - START > HOUR ? 500 : 0),
  };

  test.each(Object.entries(lies))("%s: moves the clock within the hypervisor's bounds", async (_, parent) => {
    const [found, order] = [worst(0), watchOrder()];
    const world = await new World({ ...drift, parent }).run(DAY, (now) => {
      found.look(now);
      order(now);
    });
    expect(found.offMs).toBeLessThan(WINDOW_MS + 25);
    // A line in ten minutes, whatever it says.
    expect(world.said.length).toBeLessThanOrEqual(DAY / (10 * MINUTE) + 2);
  });

  test("an hour ahead: refused with numbers, and the NSM's time stands", async () => {
    const found = worst(0);
    const world = await new World({ ...drift, bootOffMs: -900, parent: (unixMs) => unixMs + HOUR }).run(
      HOUR,
      found.look,
    );
    expect(world.said[0]).toMatch(
      /^clock: parent's time refused: got \+3(599|600)\d{3} ms from the NSM's time, expected at most 263; 1 so far$/,
    );
    expect(world.said[1]).toMatch(/^clock: set by \+\d+ ms from nsm/);
    expect(world.said[2]).toMatch(/got \+3(599|600)\d{3} ms .*; 15 so far$/);
    expect(found.offMs).toBeLessThan(30);
  });

  test.each([
    0,
    1,
    0.5,
    1e-300,
    8.64e15,
    1e300,
    Number.MAX_VALUE,
    FLOOR - 1,
    FLOOR + 31 * 365 * DAY,
    2 ** 63,
  ])("%s is no time", async (unixMs) => {
    const world = await new World({
      ...drift,
      nsmDelays: undefined,
      parent: () => unixMs,
      bootOffMs: 33,
    }).run(HOUR);
    expect(world.said[0]).toMatch(
      /^clock: parent's time refused: got .*, expected 2026-10-01T00:00:00\.000Z or 30 years later at most; 1 so far$/,
    );
    expect([world.steps, world.rates]).toEqual([[], []]);
  });

  test("slow answers cannot carry a lie out of the bounds of a document that was slow too", async () => {
    const slow = { nsmDelays: () => [500, 500] as const, delays: () => [0.2, 400] as const };
    const world = await new World({ ...slow, parent: (unixMs) => unixMs + 1_100 }).run(10_000);
    expect(world.said[0]).toMatch(/set by \+\d+ ms from parent, which is right to 3[45]\d ms/);
    expect(world.steps[0]).toBeLessThan(500 + SLACK_MS + 3);
  });

  test("a machine without the time is set forward when somebody tells it, though the app runs", async () => {
    const parent = (unixMs: number) => (unixMs < START + 60_000 ? undefined : unixMs);
    const world = new World({ nsmDelays: undefined, parent, bootOffMs: -START });
    let clockMs = Number.NEGATIVE_INFINITY;
    await world.run(HOUR, (now) => {
      expect(now.clockMs).toBeGreaterThanOrEqual(clockMs);
      clockMs = now.clockMs;
    });
    expect(world.steps.length).toBe(1);
    expect(Math.abs(world.offMs)).toBeLessThan(1);
  });

  test("any numbers: never back, never beyond the bounds", async () => {
    const said = fc.oneof(
      fc.double({ min: 0, noNaN: true, noDefaultInfinity: true }),
      fc.double({ min: -2_000, max: 2_000, noNaN: true }).map((off) => -off),
      fc.constant(undefined),
    );
    const property = async (answers: (number | undefined)[]) => {
      let index = 0;
      const parent = (unixMs: number) => {
        const answer = answers[index++ % answers.length];
        return answer === undefined || Math.abs(answer) > 2_000 ? answer : unixMs + answer;
      };
      const [found, order] = [worst(0), watchOrder()];
      await new World({ ...drift, parent }).run(6 * HOUR, (now) => {
        found.look(now);
        order(now);
      });
      expect(found.offMs).toBeLessThan(WINDOW_MS + 25);
    };
    await fc.assert(fc.asyncProperty(fc.array(said, { minLength: 1, maxLength: 20 }), property), {
      numRuns: 25,
    });
  });

  test("with no NSM: sets it at boot, moves it by at most 3.6 s an hour after", async () => {
    const world = new World({
      nsmDelays: undefined,
      parent: (unixMs) => unixMs + (unixMs - START > MINUTE ? DAY : HOUR),
    });
    await world.run(30_000);
    expect(world.said).toEqual([
      expect.stringMatching(/set by \+\d+ ms from parent.* with no NSM to confirm it$/),
    ]);
    const before = world.offMs;
    expect(before).toBeCloseTo(HOUR, -1);
    await world.go(HOUR + 30_000, watchOrder());
    expect(world.offMs - before).toBeGreaterThan(1_500);
    expect(world.offMs - before).toBeLessThan(3_700);
    expect(world.said.some((line) => /ms off by parent/.test(line))).toBe(true);
  });
});

function alternate(ms: number): (unixMs: number) => number {
  let sign = 1;
  return (unixMs) => {
    sign = -sign;
    return unixMs + sign * ms;
  };
}
