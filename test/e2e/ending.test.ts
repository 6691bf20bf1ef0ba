/** Every way an app can end, each in its own VM: the parent learns status, reason and last words, or that it crashed. */
import { describe, expect, test } from "vitest";
import { buildApp, start } from "./enclave.ts";

interface Ending {
  readonly name: string;
  /** Guest half. */
  readonly app: string;
  readonly report: Record<string, unknown>;
  /** Expected among the last words. */
  readonly lastWords?: string;
}

const ENDINGS: readonly Ending[] = [
  { name: "return", app: `console.log("done");`, report: { kind: "app", status: 0, reason: "return" } },
  {
    name: "process.exit(7)",
    app: `console.error("seven"); process.exit(7);`,
    report: { kind: "app", status: 7, reason: "exit" },
    lastWords: "seven",
  },
  {
    name: "throw at import",
    app: `const one: number = 1;\nthrow new Error("no configuration " + one);`,
    report: { kind: "app", status: 1, reason: "load" },
    lastWords: "app.ts:2",
  },
  {
    name: "uncaught exception",
    app: `setTimeout(() => {\n  throw new RangeError("too late");\n}, 10);`,
    report: { kind: "app", status: 1, reason: "exception" },
    lastWords: "app.ts:2",
  },
  {
    name: "unhandled rejection",
    app: `setTimeout(() => void Promise.reject(new Error("nobody listens")), 10);`,
    report: { kind: "app", status: 1, reason: "rejection" },
    lastWords: "nobody listens",
  },
  // SIGABRT's default disposition would be ignored for PID 1; the abort instruction after it is not.
  { name: "crash of the process", app: `setTimeout(() => process.abort(), 10);`, report: { kind: "crash" } },
];

describe.each(ENDINGS)("$name", ({ app, report, lastWords }) => {
  test("is reported", async () => {
    const built = await buildApp({ "app.ts": app }, { ports: [] });
    await using running = await start(built.eifPath, { publish: [] });
    const ended = await running.enclave.exited;
    built.remove();
    expect(ended).toMatchObject(report);
    if (lastWords !== undefined && ended.kind === "app")
      expect(ended.lastWords.join("\n")).toContain(lastWords);
    if (ended.kind === "crash") expect(ended.console).toContain("Kernel panic");
  });
});

test("an app that blocks its event loop still ships its logs, and is killed at the deadline", async () => {
  const built = await buildApp({
    "app.ts": `export default { fetch() { console.log("stuck"); for (;;); } };
process.on("SIGTERM", () => {});`,
  });
  await using running = await start(built.eifPath);
  await running.enclave.ready;
  const unanswered = fetch(running.url).catch(() => undefined);
  await expect.poll(() => running.logs(), { timeout: 60_000 }).toContain("stuck");
  const report = await running.enclave.stop({ deadlineMs: 2_000 });
  built.remove();
  expect(report).toMatchObject({ kind: "app", status: 137, reason: "killed" });
  await unanswered;
});
