import { expect, test } from "vitest";
import { Readiness } from "../../runtime/ready.ts";

type Step = number | "evaluated";

test.each<[string, number[], Step[], (number[] | undefined)[]]>([
  ["no ports: when evaluated", [], ["evaluated"], [[]]],
  ["a port: when it listens", [8080], ["evaluated", 8080], [undefined, [8080]]],
  ["listening during evaluation: when evaluated", [8080], [8080, "evaluated"], [undefined, [8080]]],
  ["listening elsewhere is listening", [8080], ["evaluated", 3000], [undefined, [3000]]],
  ["several servers by then", [8080], [1, 2, "evaluated"], [undefined, undefined, [1, 2]]],
  ["once", [], ["evaluated", 1], [[], []]],
])("%s", (_, ports, steps, expected) => {
  let ready: readonly number[] | undefined;
  let calls = 0;
  const readiness = new Readiness({
    ports,
    onReady: (listening) => {
      calls++;
      ready = listening;
    },
  });
  const seen = steps.map((step) => {
    if (step === "evaluated") readiness.evaluated();
    else readiness.listening(step);
    return ready;
  });
  expect(seen).toEqual(expected);
  expect(calls).toBeLessThanOrEqual(1);
});
