/** Who is asked when, and which answers count. */
import { describe, expect, test } from "vitest";
import { Clock } from "../../../init/time/clock.ts";
import { ClockKeeper } from "../../../init/time/keeper.ts";
import type { Reading } from "../../../init/time/reading.ts";
import { FLOOR, START, World } from "./world.ts";

/** A keeper whose time passes by hand, and what its clock was told. */
function rig({ hasParent = true, readNsm = async (): Promise<Reading> => reading(5) } = {}) {
  const told: [string, Reading][] = [];
  const said: string[] = [];
  const asked: number[] = [];
  const timers: { readonly ms: number; readonly task: () => void; isOff: boolean }[] = [];
  let nowMs = 100;
  const machine = { rawMs: () => nowMs, unixMs: () => START, setUnixMs: () => {}, setRatePpm: () => {} };
  const clock = new Clock({ machine, floorMs: FLOOR, say: (line) => said.push(line) });
  const add = clock.add.bind(clock);
  clock.add = (source, it) => {
    told.push([source, it]);
    add(source, it);
  };
  const keeper = new ClockKeeper({
    clock,
    rawMs: () => nowMs,
    ask: (sentMs) => hasParent && asked.push(sentMs) > 0,
    readNsm,
    readPtp: undefined,
    after: (ms, task) => {
      const timer = { ms, task, isOff: false };
      timers.push(timer);
      return () => {
        timer.isOff = true;
      };
    },
  });
  const settle = async () => {
    for (let turn = 0; turn < 10; turn++) await Promise.resolve();
  };
  return { keeper, told, said, asked, timers, settle, setNow: (ms: number) => (nowMs = ms) };
}

function reading(sentMs: number): Reading {
  return { sentMs, receivedMs: sentMs + 1, unixMs: START, resolutionMs: 1 };
}

describe("answers", () => {
  test("one counts for the question that is open, once", async () => {
    const it = rig();
    void it.keeper.boot(Promise.resolve());
    await it.settle();
    expect(it.asked).toEqual([100]);
    it.setNow(104);
    for (const sentMs of [99, 0, 100.5, 101]) it.keeper.answer({ sentMs, unixMs: START });
    expect(it.told.filter(([source]) => source === "parent")).toEqual([]);
    it.keeper.answer({ sentMs: 100, unixMs: START });
    it.keeper.answer({ sentMs: 100, unixMs: START + 5 });
    const expected = { sentMs: 100, receivedMs: 104, unixMs: START, resolutionMs: 1 };
    expect(it.told.filter(([source]) => source === "parent")).toEqual([["parent", expected]]);
  });

  test("one that comes after two seconds counts no more", async () => {
    const it = rig();
    void it.keeper.boot(Promise.resolve());
    await it.settle();
    it.timers.find(({ ms }) => ms === 2_000)?.task();
    it.keeper.answer({ sentMs: 100, unixMs: START });
    expect(it.told.map(([source]) => source)).toEqual(["nsm"]);
  });
});

describe("the boot", () => {
  test("asks eight times, one question after the other", async () => {
    const it = rig();
    const booted = it.keeper.boot(Promise.resolve());
    for (let i = 0; i < 8; i++) {
      await it.settle();
      expect(it.asked.length).toBe(i + 1);
      it.setNow(101 + i);
      it.keeper.answer({ sentMs: it.asked[i] ?? 0, unixMs: START });
    }
    await booted;
    expect(it.asked.length).toBe(8);
    expect(it.said).toEqual([expect.stringMatching(/^clock: /)]);
  });

  test("waits a second for a parent that is silent", async () => {
    const it = rig();
    const booted = it.keeper.boot(Promise.resolve());
    await it.settle();
    it.timers.find(({ ms }) => ms === 1_000)?.task();
    await booted;
    expect(it.said).toEqual([expect.stringMatching(/from nsm|by nsm/)]);
  });

  test("does not wait for a parent that is absent", async () => {
    const it = rig({ hasParent: false });
    await it.keeper.boot(Promise.resolve());
    expect(it.timers.every(({ isOff }) => isOff)).toBe(true);
  });

  test("does without an NSM that fails, and says so once", async () => {
    const it = rig({ hasParent: false, readNsm: () => Promise.reject(new Error("NSM: got InternalError")) });
    await it.keeper.boot(Promise.resolve());
    it.keeper.keep();
    for (let turn = 0; turn < 5; turn++) {
      it.timers.findLast(({ ms }) => ms >= 30_000)?.task();
      await it.settle();
    }
    expect(it.said).toEqual([
      "clock: nsm does not tell the time: NSM: got InternalError",
      "clock: nobody here tells the time, it stays what the machine says",
    ]);
  });

  test("an NSM that is slow holds up the boot, not what the parent may do", async () => {
    const nsm = Promise.withResolvers<Reading>();
    const it = rig({ readNsm: () => nsm.promise });
    let isBooted = false;
    const booted = it.keeper.boot(Promise.resolve()).then(() => {
      isBooted = true;
    });
    for (let i = 0; i < 8; i++) {
      await it.settle();
      it.keeper.answer({ sentMs: 100, unixMs: START + 3_600_000 });
    }
    await it.settle();
    expect([isBooted, it.said]).toEqual([false, []]);
    nsm.resolve(reading(100));
    await booted;
    expect(it.said[0]).toMatch(/parent's time refused/);
  });
});

test("questions become rarer: every 64 s the parent, every ten minutes the NSM", async () => {
  const asked: number[] = [];
  const read: number[] = [];
  const world: World = new World({
    parent: (unixMs) => {
      asked.push(Math.round((unixMs - START) / 1_000));
      return unixMs;
    },
    nsmDelays: () => {
      read.push(Math.round((world?.elapsedMs ?? 0) / 1_000));
      return [5, 5];
    },
  });
  await world.run(3_600_000);
  expect(asked.slice(8, 16)).toEqual([2, 6, 14, 30, 62, 126, 190, 254]);
  expect(read).toEqual([0, 30, 90, 210, 450, 930, 1530, 2130, 2730, 3330]);
});
