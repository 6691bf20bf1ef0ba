/** The CLI as a function: help, usage errors, JSON errors, option values. No process is started. */
import { PassThrough } from "node:stream";
import { describe, expect, test } from "vitest";
import type { Io } from "../../cli/command.ts";
import { main, VERBS } from "../../cli/main.ts";
import { parseCompression, parseInteger, parseMemory, parsePublish, publishText } from "../../cli/operand.ts";

async function call(...words: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  const stdout = new PassThrough();
  const stderr = new PassThrough();
  const io: Io = { stdout, stderr, env: {}, directory: "/", signal: new AbortController().signal };
  const status = await main(words, io);
  const read = (stream: PassThrough) => String(stream.read() ?? "");
  return { status, stdout: read(stdout), stderr: read(stderr) };
}

test.each([[["--help"]], [["help"]], [["-h"]]])("%j lists the verbs", async (words) => {
  const { status, stdout } = await call(...words);
  expect(status).toBe(0);
  for (const { name, summary } of VERBS) expect(stdout).toMatch(new RegExp(`${name} +${summary}`));
});

test.each(VERBS)("$name --help shows every option and an example", async (verb) => {
  const { status, stdout } = await call(verb.name, "--help");
  const { name, options } = await verb.load();
  expect([status, name]).toEqual([0, verb.name]);
  expect(stdout.startsWith(`${verb.summary}.\n`)).toBe(true);
  for (const option of Object.keys(options)) expect(stdout).toContain(`--${option}`);
  expect(stdout).toContain(`cloister ${name} `);
});

test("--version is package.json's", async () => {
  expect((await call("--version")).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
});

test.each([
  [["fly"], '"fly"'],
  [["biuld"], 'Did you mean "build"?'],
  [["describe"], "found no EIF file"],
  [["describe", "a", "b"], '"b" after "a"'],
  [["run", "--nonsense"], "--nonsense"],
  [["run", "a.eif", "--emulator", "--memory", "lots"], '"lots"'],
  [["run", "a.eif", "--emulator", "--publish", "80"], '"80"'],
  [["build", "--compression", "brotli"], '"brotli"'],
])("%j is a usage error that says what was found", async (words, found) => {
  const { status, stderr } = await call(...words);
  expect(status).toBe(2);
  expect(stderr).toContain("E_USAGE");
  expect(stderr).toContain(found);
  expect(stderr).toContain("fix: ");
});

test("with --json an error is one JSON value on standard output, too", async () => {
  const { status, stdout, stderr } = await call("describe", "/nonexistent", "--json");
  expect(status).toBe(1);
  expect(JSON.parse(stdout)).toEqual({
    Error: { Code: "E_EIF_READ", Message: expect.stringContaining("/nonexistent"), Fix: expect.any(String) },
  });
  expect(stderr).toContain("E_EIF_READ");
});

describe("option values", () => {
  test.each([
    ["512", 512],
    ["512M", 512],
    ["2G", 2048],
    ["1gib", 1024],
  ])("--memory %s is %d MiB", (text, mib) => expect(parseMemory("--memory", text)).toBe(mib));

  test.each(["", "0", "-1", "1T", "1.5G", "M", "99999999999"])("--memory %j is refused", (text) => {
    expect(() => parseMemory("--memory", text)).toThrow(/--memory: got ".*", expected MiB/);
  });

  test.each([
    ["8080:80", { port: 8080, vsockPort: 80 }],
    ["0:4294967294", { port: 0, vsockPort: 4294967294 }],
    ["0.0.0.0:1:2", { address: "0.0.0.0", port: 1, vsockPort: 2 }],
    ["[::1]:1:2", { address: "::1", port: 1, vsockPort: 2 }],
    ["localhost:1:2", { address: "localhost", port: 1, vsockPort: 2 }],
    ["1:2,proxy", { port: 1, vsockPort: 2, proxyProtocol: true }],
    ["[::1]:1:2,noproxy", { address: "::1", port: 1, vsockPort: 2, proxyProtocol: false }],
    ["unix:/run/a:b.sock:2", { path: "/run/a:b.sock", vsockPort: 2 }],
    ["systemd:2", { systemd: "", vsockPort: 2 }],
    ["systemd:web:2,proxy", { systemd: "web", vsockPort: 2, proxyProtocol: true }],
  ])("--publish %s", (text, expected) => {
    expect(parsePublish(text)).toEqual(expected);
    expect(publishText(parsePublish(text))).toBe(text);
  });

  test.each([
    ...["", "80", "a:b", "65536:1", "1:4294967295", "1:2:3:4", "::1:1:2", ":1:2"],
    ...["1:2,prox", "1:2,proxy,proxy", "unix:2", "unix::2", "systemd::2", "systemd:a:b:2", "/run/a.sock:2"],
  ])("--publish %j is refused", (text) => expect(() => parsePublish(text)).toThrow(/--publish/));

  test("--compression and integers", () => {
    expect(parseCompression("none")).toEqual({ algorithm: "none" });
    expect(parseCompression("zstd:19")).toEqual({ algorithm: "zstd", level: 19 });
    expect(() => parseCompression("zstd:fast")).toThrow('got "fast"');
    expect(() => parseInteger("--cpus", "1e3", 1, 512)).toThrow(
      '--cpus: got "1e3", expected a number from 1 to 512',
    );
    expect(() => parseInteger("--cpus", "513", 1, 512)).toThrow("--cpus");
  });
});
