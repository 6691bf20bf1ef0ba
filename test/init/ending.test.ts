/** Every way in which a program ends, in a process of its own: the status and reason that PID 1 would report. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";

const directory = mkdtempSync(join(tmpdir(), "ending-"));
afterAll(() => rmSync(directory, { recursive: true }));

const harness = `
  import { writeSync } from "node:fs";
  const { watchEnding, failLoad } = await import(process.env.ENDING);
  const ending = watchEnding((status, reason) => {
    writeSync(1, JSON.stringify({ status, reason }));
    process.kill(process.pid, "SIGKILL");
  });
  import(process.env.APP).then(() => ending.loaded(), (error) => failLoad(ending, error));
`;

function run(source: string) {
  const app = join(directory, "app.mjs");
  const main = join(directory, "main.mjs");
  writeFileSync(app, source);
  writeFileSync(main, harness);
  const ENDING = join(import.meta.dirname, "../../init/ending.ts");
  const { stdout, stderr } = spawnSync(process.execPath, [main], {
    env: { ...process.env, ENDING, APP: app },
    encoding: "utf8",
    timeout: 60_000,
  });
  return { ...(JSON.parse(stdout) as { status: number; reason: string }), stderr };
}

test.each([
  ["the event loop empties", "", 0, "return"],
  ["with process.exitCode", "process.exitCode = 5", 5, "return"],
  ["with an exitCode of text", "process.exitCode = '6'", 6, "return"],
  ["after some work", "setTimeout(() => {}, 10)", 0, "return"],
  [
    "work that beforeExit adds",
    "process.once('beforeExit', () => setTimeout(() => process.exit(4), 10))",
    4,
    "exit",
  ],
  ["process.exit()", "process.exit()", 0, "exit"],
  ["process.exit(7)", "setTimeout(() => process.exit(7))", 7, "exit"],
  ["process.exit(256), as wait(2) sees it", "process.exit(256)", 0, "exit"],
  ["process.exit(-1)", "process.exit(-1)", 255, "exit"],
  [
    "an 'exit' listener that sets exitCode",
    "process.on('exit', () => { process.exitCode = 9 })",
    9,
    "return",
  ],
  ["an 'exit' listener that exits", "process.on('exit', () => process.exit(3))", 3, "exit"],
  ["an 'exit' listener that throws", "process.on('exit', () => { throw new Error('late') })", 0, "return"],
  ["an uncaught exception", "setTimeout(() => { throw new Error('boom') })", 1, "exception"],
  ["throwing what is no error", "setTimeout(() => { throw undefined })", 1, "exception"],
  ["an unhandled rejection", "Promise.reject(new Error('boom'))", 1, "rejection"],
  ["a throw at import", "throw new Error('boom')", 1, "load"],
  ["a syntax error", "const const", 1, "load"],
  ["a missing module", "import './absent.mjs'", 1, "load"],
  ["a top-level await that never settles", "await new Promise(() => {})", 13, "load"],
])("%s", (_, source, status, reason) => {
  expect(run(source)).toMatchObject({ status, reason });
});

test("the app's 'exit' listeners run, and see the status", () => {
  const { stderr } = run("process.on('exit', (code) => console.error('bye', code)); process.exit(2)");
  expect(stderr).toContain("bye 2");
});

test("an exception that the app handles is not its end", () => {
  const source = "process.on('uncaughtException', () => setTimeout(() => process.exit(8))); throw 1";
  expect(run(`setTimeout(() => { ${source} })`)).toMatchObject({ status: 8, reason: "exit" });
});

test.each([
  ["exception", "setTimeout(() => { throw new Error('boom') })"],
  ["rejection", "Promise.reject(new Error('boom'))"],
  ["load", "throw new Error('boom')"],
])("the stack of an %s is on stderr", (_, source) => {
  expect(run(source).stderr).toMatch(/^Uncaught Error: boom\n {4}at .*app\.mjs:1/m);
});
