/** What a supervisor concludes from what it hears, and when. */
import { describe, expect, test } from "vitest";
import { stateText } from "../../cli/ps.ts";
import type { EnclaveStats } from "../../format/stats.ts";
import { DEAD_MS, Health, healthText, SILENT_MS, STALLED_MS } from "../../launcher/health.ts";
import type { EnclaveState } from "../../launcher/record.ts";
import type { SupervisorEvent } from "../../launcher/supervisor.ts";
import { STATS } from "./stats.ts";

const stage: SupervisorEvent = { type: "stage", stage: "memory", elapsedMs: 1 };
const ready: SupervisorEvent = { type: "ready", ports: [], elapsedMs: 1 };
const log: SupervisorEvent = { type: "log", time: 1, source: "stdout", level: "info", text: "x", dropped: 0 };
const stats = (changes: Partial<EnclaveStats> = {}): SupervisorEvent => ({
  type: "stats",
  stats: { ...STATS, stalledMs: 0, ...changes },
});
const stalled = (stalledMs: number) => stats({ stalledMs });

interface Judged {
  readonly alive: boolean;
  readonly ready: boolean;
  readonly probe: string;
  readonly ps: string;
}

function judge(state: EnclaveState, ...told: (SupervisorEvent | number)[]): Judged {
  let now = 1e6;
  const health = new Health(
    () => state,
    () => now,
  );
  for (const item of told) {
    if (typeof item === "number") now += item;
    else health.observe(item);
  }
  const report = health.report();
  const { alive, ready } = report;
  return { alive, ready, probe: healthText(report), ps: stateText(state, report) };
}

describe("while it runs", () => {
  test.each<[string, (SupervisorEvent | number)[], Judged]>([
    ["not ready yet", [stage], { alive: true, ready: false, probe: "booting", ps: "running, not ready" }],
    ["ready", [stage, ready], { alive: true, ready: true, probe: "ready", ps: "running" }],
    [
      "busy for a moment",
      [stage, ready, stalled(STALLED_MS - 1)],
      { alive: true, ready: true, probe: "ready", ps: "running" },
    ],
    [
      "stalled",
      [stage, ready, stalled(12_300)],
      { alive: true, ready: false, probe: "stalled for 12 s", ps: "stalled 12s" },
    ],
    [
      "busy with its own modules",
      [stage, stalled(DEAD_MS - 1)],
      { alive: true, ready: false, probe: "booting", ps: "running, not ready" },
    ],
    [
      "ready right after that",
      [stage, stalled(12_000), ready],
      { alive: true, ready: true, probe: "ready", ps: "running" },
    ],
    [
      "stalled before it was ready",
      [stage, stalled(DEAD_MS)],
      { alive: false, ready: false, probe: "stalled for 60 s", ps: "stalled 1m0s" },
    ],
    [
      "stalled for good",
      [stage, ready, stalled(DEAD_MS)],
      { alive: false, ready: false, probe: "stalled for 60 s", ps: "stalled 1m0s" },
    ],
    [
      "back again",
      [stage, ready, stalled(DEAD_MS), stats()],
      { alive: true, ready: true, probe: "ready", ps: "running" },
    ],
    [
      "quiet, as one that never told numbers",
      [stage, ready, log, 1e9],
      { alive: true, ready: true, probe: "ready", ps: "running" },
    ],
    [
      "not silent yet",
      [stage, ready, stats(), SILENT_MS - 1],
      { alive: true, ready: true, probe: "ready", ps: "running" },
    ],
    [
      "silent",
      [stage, ready, stats(), SILENT_MS + 10_000],
      { alive: false, ready: false, probe: "silent for 40 s", ps: "silent 40s" },
    ],
    [
      "heard again",
      [stage, ready, stats(), SILENT_MS, log],
      { alive: true, ready: true, probe: "ready", ps: "running" },
    ],
    [
      "started again: what the one before said counts no more",
      [stage, ready, stats(), stage, SILENT_MS],
      { alive: true, ready: false, probe: "booting", ps: "running, not ready" },
    ],
  ])("%s", (_, told, expected) => {
    expect(judge("running", ...told)).toEqual(expected);
  });
});

test.each<[EnclaveState, boolean]>([
  ["starting", false],
  ["stopping", true],
  ["restarting", false],
  ["ended", false],
])("%s is never ready", (state, alive) => {
  const told = [stage, ready, stats(), 2 * SILENT_MS];
  expect(judge(state, ...told)).toEqual({ alive, ready: false, probe: state, ps: state });
});

test("a supervisor that does not answer: the record's word", () => {
  expect(stateText("running", undefined)).toBe("running");
});

test("numbers come with their age", () => {
  let now = 5;
  const health = new Health(
    () => "running",
    () => now,
  );
  expect(health.report()).not.toHaveProperty("stats");
  health.observe(stats({ rssBytes: 9 }));
  now += 7;
  expect(health.report()).toMatchObject({ stats: { rssBytes: 9 }, statsAgeMs: 7 });
});
