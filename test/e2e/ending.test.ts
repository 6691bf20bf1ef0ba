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
  /** Expected among the log records. */
  readonly logs?: string;
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
  {
    name: "process.abort()",
    app: `setTimeout(() => { console.error("giving up"); process.abort(); }, 10);`,
    report: { kind: "app", status: 134, reason: "abort" },
    lastWords: "giving up",
  },
  {
    name: "out of heap",
    // Numbers, which cost the garbage collector nothing.
    app: `console.error("filling");\nconst kept: number[][] = [];\nfor (let i = 0.5; ; i++) kept.push(new Array(100_000).fill(i));`,
    report: { kind: "app", status: 134, reason: "abort" },
    lastWords: "heap out of memory",
  },
  // A read of address 8, as an addon's mistake. What is still in the pipe at that moment is lost with the machine.
  {
    name: "crash of the process",
    app: `import ffi from "node:ffi"; console.log("said before"); setTimeout(() => ffi.getInt32(8n, 0), 2_000);`,
    report: { kind: "crash" },
    logs: "said before",
  },
];

describe.each(ENDINGS)("$name", ({ app, report, lastWords, logs }) => {
  test("is reported", async () => {
    const built = await buildApp({ "app.ts": app }, { ports: [] });
    await using running = await start(built.eifPath, { publish: [] });
    const ended = await running.enclave.exited;
    built.remove();
    expect(ended).toMatchObject(report);
    if (lastWords !== undefined && ended.kind === "app")
      expect(ended.lastWords.join("\n")).toContain(lastWords);
    if (logs !== undefined) expect(running.logs()).toContain(logs);
    if (ended.kind === "crash") expect(ended.console).toContain("Kernel panic");
  });
});
