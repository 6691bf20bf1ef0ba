import { expect, test } from "vitest";
import { Readiness } from "../../runtime/ready.ts";

type Step = number | "evaluated" | "said";

type Row = [string, number[], Step[], (number[] | undefined)[]];

const LISTEN: Row[] = [
  ["no ports: when evaluated", [], ["evaluated"], [[]]],
  ["a port: when it listens", [8080], ["evaluated", 8080], [undefined, [8080]]],
  ["listening during evaluation: when evaluated", [8080], [8080, "evaluated"], [undefined, [8080]]],
  ["listening elsewhere is listening", [8080], ["evaluated", 3000], [undefined, [3000]]],
  ["several servers by then", [8080], [1, 2, "evaluated"], [undefined, undefined, [1, 2]]],
  ["once", [], ["evaluated", 1], [[], []]],
  [
    "its own word does not replace a port",
    [8080],
    ["evaluated", "said", 8080],
    [undefined, undefined, [8080]],
  ],
];

const APP: Row[] = [
  ["when it says so", [8080], ["evaluated", 8080, "said"], [undefined, undefined, [8080]]],
  [
    "said during evaluation: when evaluated",
    [8080],
    ["said", 8080, "evaluated"],
    [undefined, undefined, [8080]],
  ],
  ["said before it listens: its word counts", [8080], ["evaluated", "said", 8080], [undefined, [], []]],
  ["without ports it must say so too", [], ["evaluated", "said"], [undefined, []]],
  ["said twice: once", [], ["evaluated", "said", "said"], [undefined, [], []]],
];

test.each([
  ...LISTEN.map((row) => ["listen" as const, ...row] as const),
  ...APP.map((row) => ["app" as const, ...row] as const),
])("%s: %s", (mode, _, ports, steps, expected) => {
  let ready: readonly number[] | undefined;
  let calls = 0;
  const readiness = new Readiness({
    mode,
    ports,
    onReady: (listening) => {
      calls++;
      ready = listening;
    },
  });
  const seen = steps.map((step) => {
    if (step === "evaluated") readiness.evaluated();
    else if (step === "said") readiness.said();
    else readiness.listening(step);
    return ready;
  });
  expect(seen).toEqual(expected);
  expect(calls).toBeLessThanOrEqual(1);
});
