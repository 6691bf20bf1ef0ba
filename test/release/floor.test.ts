import { expect, test } from "vitest";
import { FLOOR_MS } from "../../init/time/enclave.ts";
import { floorProblem } from "../../release/floor.ts";

const COMMIT = Date.UTC(2026, 10, 21, 7, 42);

test.each([
  ["the commit's day", Date.UTC(2026, 10, 21), undefined],
  ["weeks before", Date.UTC(2026, 9, 23), undefined],
  ["months before", Date.UTC(2026, 8, 1), /got 2026-09-01, expected 2026-10-22 to 2026-11-21/],
  ["a day that is still to come", Date.UTC(2026, 10, 22), /got 2026-11-22, expected .* to 2026-11-21/],
] as const)("a floor at %s", (_name, floor, problem) => {
  if (problem === undefined) expect(floorProblem(floor, COMMIT)).toBeUndefined();
  else expect(floorProblem(floor, COMMIT)).toMatch(problem);
});

test("the floor of this checkout is no day that is still to come: every clock would be refused", () => {
  expect(FLOOR_MS).toBeLessThan(Date.now());
});
