/** A bare enclave as `cloister dev --bare` runs it. What it shares with a VM: enclave.test.ts. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { text } from "node:stream/consumers";
import { build } from "esbuild";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { BARE_DIFFERENCES, type BareEnclave, type BareOptions, startBare } from "../../dev/bare/index.ts";
import type { EnclaveEvent } from "../../launcher/event.ts";
import { bundleApp } from "../../packer/bundle.ts";
import type { CloisterConfig } from "../../packer/config.ts";
import { loadProject } from "../../packer/project.ts";
import { makeProject } from "./app.ts";

interface Run {
  readonly enclave: BareEnclave;
  readonly events: readonly EnclaveEvent[];
  readonly url: string;
}

async function run(
  files: Readonly<Record<string, string>> = {},
  overrides: CloisterConfig = {},
  options: Partial<BareOptions> = {},
): Promise<Run> {
  const { directory, ...made } = makeProject(files);
  onTestFinished(() => made[Symbol.dispose]());
  const project = await loadProject({ directory, overrides });
  const events: EnclaveEvent[] = [];
  const enclave = await startBare({
    ...{ project, bundle: await bundleApp(project), publish: [{ port: 0, vsockPort: 8080 }] },
    onEvent: (event) => events.push(event),
    ...options,
  });
  onTestFinished(async () => void (await enclave.terminate()));
  return { enclave, events, url: `http://127.0.0.1:${enclave.published[0]?.port}` };
}

const logs = ({ events }: Run) => events.flatMap((event) => (event.type === "log" ? event.text : []));

test("a connection to a published port waits until the app serves", async () => {
  const { url, enclave } = await run();
  expect(await (await fetch(url)).json()).toEqual({ hello: "world" });
  await enclave.ready;
});

test("two have the same ports and nothing in common", async () => {
  const [one, two] = await Promise.all([run(), run()]);
  await Promise.all([one.enclave.ready, two.enclave.ready]);
  for (const { url } of [one, two]) expect(await (await fetch(url)).json()).toEqual({ hello: "world" });
  expect(one.enclave.pid).not.toBe(two.enclave.pid);
});

test("an app that was built for it is told who connects", async () => {
  const source = `import { createServer } from "node:net";
    createServer((socket) => socket.end(socket.remoteAddress + " " + socket.remotePort)).listen(8080);`;
  const { enclave } = await run({ "app.ts": source }, { proxyProtocol: true });
  const socket = connect({ port: enclave.published[0]?.port ?? 0, host: "127.0.0.1" });
  await once(socket, "connect");
  const { localPort } = socket;
  expect(await text(socket)).toBe(`127.0.0.1 ${localPort}`);
});

test("a port that is taken is known before anything runs", async () => {
  const { enclave } = await run();
  const port = enclave.published[0]?.port ?? 0;
  await expect(run({}, {}, { publish: [{ port, vsockPort: 1 }] })).rejects.toMatchObject({
    code: "E_PORT_TAKEN",
  });
});

describe("its end", () => {
  const ends = async (source: string, overrides: CloisterConfig = { ports: [] }) => {
    const made = await run({ "app.ts": source }, overrides);
    return { ...made, report: await made.enclave.exited };
  };

  test.each([
    ["return", "console.log('done');", { kind: "app", status: 0, reason: "return" }],
    ["exit", "process.exit(9);", { kind: "app", status: 9, reason: "exit" }],
    ["exception", "setTimeout(() => { throw new Error('late'); });", { status: 1, reason: "exception" }],
    ["rejection", "setTimeout(() => Promise.reject(new Error('late')));", { status: 1, reason: "rejection" }],
    ["load", "throw new Error('early');", { status: 1, reason: "load" }],
    ["abort", "process.abort();", { status: 134, reason: "abort" }],
    ["crash", "process.kill(process.pid, 'SIGKILL');", { kind: "crash" }],
  ])("by %s is told as an enclave's", async (_, source, expected) => {
    const { report, events } = await ends(`${source}\nexport {};`);
    expect(report).toMatchObject(expected);
    expect(events.at(-1)).toEqual({ type: "exit", report });
  });

  test("comes with the last words, whole, and leaves no folder", async () => {
    const own = mkdtempSync(join(tmpdir(), "cloister-bare-"));
    onTestFinished(() => {
      vi.unstubAllEnvs();
      rmSync(own, { recursive: true, force: true });
    });
    vi.stubEnv("TMPDIR", own);
    const source = "for (let i = 0; i < 5000; i++) console.error('line ' + i);\nprocess.exit(3);";
    const { report, ...made } = await ends(source);
    const words = report.kind === "app" ? report.lastWords : [];
    expect(words).toHaveLength(20);
    expect(words.at(-1)).toBe("line 4999");
    expect(logs(made)).toHaveLength(5000);
    expect(readdirSync(own).filter((name) => existsSync(join(own, name, "main.mjs")))).toEqual([]);
  });

  test("before it is ready is why it is not", async () => {
    const { enclave } = await run({ "app.ts": "throw new Error('early');" });
    await expect(enclave.ready).rejects.toMatchObject({
      code: "E_APP_ENDED",
      details: expect.stringContaining("early"),
    });
  });

  test("asked for, answers what is under way", async () => {
    const { enclave, url } = await run();
    await enclave.ready;
    await fetch(url);
    expect(await enclave.stop()).toMatchObject({ kind: "app", status: 0, reason: "signal" });
    await expect(fetch(url)).rejects.toThrow();
  });

  test("comes by force to an app that does not let go", async () => {
    const made = await run();
    await made.enclave.ready;
    const socket = connect({ port: made.enclave.published[0]?.port ?? 0 });
    onTestFinished(() => void socket.destroy());
    socket.on("error", () => {});
    await once(socket, "connect");
    socket.write("GET /block HTTP/1.1\r\nHost: x\r\n\r\n");
    await expect.poll(() => logs(made)).toContain("blocking");
    expect(await made.enclave.stop({ deadlineMs: 200 })).toMatchObject({ status: 137, reason: "killed" });
    expect(logs(made)).toContain("the app did not end before the shutdown deadline");
  });

  test("is its children's too", async () => {
    const { enclave, events } = await run(
      {
        "app.ts": `import { spawn } from "node:child_process";
        const child = spawn(process.execPath, ["-e", "console.log(1); setInterval(() => {}, 1000)"]);
        child.stdout.once("data", () => { console.log(child.pid); process.exit(0); });`,
      },
      { ports: [] },
    );
    await enclave.exited;
    const pid = Number(events.flatMap((event) => (event.type === "log" ? event.text : []))[0]);
    expect(pid).toBeGreaterThan(1);
    await expect.poll(() => isRunning(pid)).toBe(false);
  });
});

/** A zombie that nobody reaps is not. */
function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    // ESRCH: gone.
    return false;
  }
  return !/\) Z /.test(existsSync(`/proc/${pid}/stat`) ? readFileSync(`/proc/${pid}/stat`, "utf8") : "");
}

test("Node's inspector can be reached, and knows the app by its author's files", async () => {
  const made = await run({}, {}, { inspect: "127.0.0.1:0" });
  await made.enclave.ready;
  const line = logs(made).find((text) => text.startsWith("Debugger listening on "));
  const { host } = new URL(line?.split(" ").at(-1) ?? "");
  const [target] = (await (await fetch(`http://${host}/json`)).json()) as { readonly url: string }[];
  expect(target?.url).toContain("main.mjs");
});

test("an error shows the line of the app's own file", async () => {
  const made = await run({ "app.ts": "const x: number = 1;\nthrow new Error(String(x));\nexport {};" });
  await made.enclave.exited;
  expect(logs(made).join("\n")).toMatch(/cloister-dev-test-\w+\/app\.ts:2:7/);
});

test.each([
  ["a handler without a name", "export default () => new Response('x');"],
  ["a misspelt one", "export default { fech: () => new Response('x') };"],
])("%s is no handler, which is told", async (_, source) => {
  const made = await run({ "app.ts": source });
  expect(await made.enclave.exited).toMatchObject({ kind: "app", status: 0, reason: "return" });
  expect(logs(made)).toContain("the default export has no function named fetch: nothing serves it");
});

test("what it is not is said in sentences", () => {
  expect(BARE_DIFFERENCES.length).toBeGreaterThan(4);
  for (const difference of BARE_DIFFERENCES) expect(difference).toMatch(/^[A-Z].*\.$/);
});

test.each([
  "dev/bare/index.ts",
  "dev/bare/guest/main.ts",
  "dev/bare/guest/preload.ts",
  "dev/enclave.ts",
  "dev/test/plain.ts",
])("%s loads no system call of Linux's, so that it runs elsewhere", async (entry) => {
  const { metafile } = await build({
    entryPoints: [entry],
    bundle: true,
    write: false,
    metafile: true,
    platform: "node",
    format: "esm",
    outdir: ".",
    splitting: true,
    packages: "external",
    logLevel: "silent",
  });
  const outputs = Object.entries(metafile.outputs);
  const first = outputs.find(([, output]) => output.entryPoint === entry)?.[0] ?? "";
  const seen = new Set<string>();
  const visit = (path: string): void => {
    if (seen.has(path)) return;
    seen.add(path);
    for (const { path: next, kind } of metafile.outputs[path]?.imports ?? []) {
      if (kind !== "dynamic-import") visit(next);
    }
  };
  visit(first);
  const inputs = [...seen].flatMap((path) => Object.keys(metafile.outputs[path]?.inputs ?? {}));
  expect(inputs).toContain(entry);
  expect(inputs.filter((path) => path.startsWith("linux/") && path !== "linux/failure.ts")).toEqual([]);
});

test("on another system cloister/emulator can be imported, and an enclave run; what needs Linux says so", async () => {
  const project = makeProject();
  onTestFinished(() => project[Symbol.dispose]());
  const root = join(import.meta.dirname, "../..");
  const load = (path: string) => `await import(${JSON.stringify(join(root, path))})`;
  const source = `
    Object.defineProperty(process, "platform", { value: "darwin" });
    const { createEnclave } = ${load("dev/emulator.ts")};
    const { uptimeMs } = ${load("linux/clock.ts")};
    await using enclave = await createEnclave({ directory: ${JSON.stringify(project.directory)}, mode: "bare" });
    console.log(await (await enclave.fetch("/")).text());
    try { uptimeMs(); } catch (error) { console.log(error.code); }`;
  // esbuild looks for its own program by the platform.
  const program = join(root, `node_modules/@esbuild/${process.platform}-${process.arch}/bin/esbuild`);
  const child = spawn(process.execPath, ["--input-type=module", "-e", source], {
    env: { ...process.env, ESBUILD_BINARY_PATH: program },
    stdio: ["ignore", "pipe", "inherit"],
  });
  expect(await text(child.stdout)).toBe('{"hello":"world"}\nENOSYS\n');
});

const TALKER = `
setInterval(() => console.log("more"), 1);
export default { fetch: () => new Response() };
`;
test.each<[string, Readonly<Record<string, string>>]>([
  ["", {}],
  [", while it writes", { "app.ts": TALKER }],
])("it ends with its parent, even one that is killed%s", async (_, files) => {
  const { directory, ...made } = makeProject(files);
  onTestFinished(() => made[Symbol.dispose]());
  const load = (path: string) => `await import(${JSON.stringify(join(import.meta.dirname, "../..", path))})`;
  const source = `
    const { startBare } = ${load("dev/bare/index.ts")};
    const { bundleApp } = ${load("packer/bundle.ts")};
    const { loadProject } = ${load("packer/project.ts")};
    const project = await loadProject({ directory: ${JSON.stringify(directory)} });
    const enclave = await startBare({ project, bundle: await bundleApp(project), publish: [] });
    await enclave.ready;
    console.log(enclave.pid);`;
  const parent = spawn(process.execPath, ["--input-type=module", "-e", source], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [line] = await once(parent.stdout, "data");
  const pid = Number(line);
  expect(isRunning(pid)).toBe(true);
  const [, main = ""] = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  const folder = dirname(main);
  expect(existsSync(folder)).toBe(true);
  parent.kill("SIGKILL");
  await expect.poll(() => isRunning(pid), { timeout: 10_000 }).toBe(false);
  expect(existsSync(folder)).toBe(false);
});
