/**
 * Enclaves under their names, as a user has them: real processes, real machines. Every process of a test carries the run
 * directory in its environment, by which none can hide.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { EnclaveMessage } from "../../format/control.ts";
import { type Call, control, crash, hang, heartbeat, print, restart, tinyEif } from "../emulator/tiny.ts";
import { whyNoPages } from "../pages.ts";
import { ROOT } from "./enclave.ts";

const ENTRY = join(ROOT, "cli/entry.ts");
const LIMIT_MS = 240_000;
const folder = mkdtempSync(join(tmpdir(), "cloister-life-"));
const READY: EnclaveMessage = { type: "ready", ports: [], uptimeMs: 1 };
const say = (line: string): EnclaveMessage => ({ type: "log", time: 1, source: "stdout", text: line });
const exit = (status: number): EnclaveMessage => ({
  type: "exit",
  status,
  reason: "exit",
  lastWords: ["bye"],
});

/** Images, by what their app does. */
const image = (name: string) => join(folder, `${name}.eif`);
const CALLS: Readonly<Record<string, readonly Call[]>> = {
  // The parent says `shutdown`.
  obeys: [
    print("from the console\n"),
    ...heartbeat(),
    ...control([READY, say("hello")], 1),
    ["write", 3, line(exit(0)), line(exit(0)).length],
    ["read", 3, new Uint8Array(4096), 4096],
    ...restart,
  ],
  stays: [...heartbeat(), ...control([READY, say("hello")], 0), ...hang],
  // The parent says `bye`.
  fails: [...heartbeat(), ...control([READY, exit(3)], 1), ...restart],
  early: [...heartbeat(), ...control([exit(4)], 1), ...restart],
  // Whoever was told the time was heard before.
  crashes: [...heartbeat(), ...control([READY, { type: "clock", sentMs: 1 }], 1), ...crash],
  silent: [...hang],
};

function line(message: EnclaveMessage): Buffer {
  return Buffer.from(`${JSON.stringify(message)}\n`);
}

let run: string;
beforeAll(() => {
  for (const [name, calls] of Object.entries(CALLS)) writeFileSync(image(name), tinyEif(calls));
});
beforeEach(() => {
  run = mkdtempSync(join(folder, "run-"));
});
afterEach(async () => {
  await cloister("terminate", "--all").ended;
  await expect.poll(ours, { timeout: 60_000 }).toEqual([]);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

interface Process {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  stderr(): string;
}

function start(program: string, words: readonly string[]): Process {
  const child = spawn(program, words, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, CLOISTER_RUN_DIR: run },
  });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
    stderr += chunk;
  });
  const closed = once(child, "close");
  const ended = Promise.all([text(child.stdout), closed]).then(([stdout, [status]]) => ({
    status,
    stdout,
    stderr,
  }));
  return { child, ended, stderr: () => stderr };
}

const cloister = (...words: string[]) => start(process.execPath, [ENTRY, ...words]);
const detach = (name: string, ...more: string[]) =>
  cloister("run", image(name), "--emulator", "--detach", "--verbose", ...more);

async function json(...words: string[]): Promise<Ended & { readonly value: never }> {
  const ended = await cloister(...words).ended;
  if (ended.stdout === "") throw new Error(ended.stderr);
  return { ...ended, value: JSON.parse(ended.stdout) as never };
}

interface Row {
  readonly EnclaveName: string;
  readonly EnclaveID: string;
  readonly EnclaveCID: number;
  readonly ProcessID: number;
  readonly State: string;
  readonly Restarts: number;
  readonly End?: { readonly Kind: string; readonly By?: string; readonly Status?: number };
}

const list = async (): Promise<Row[]> => (await json("ps", "-a", "--json")).value;

/** Living processes of this test other than this one: pid and name. */
function ours(): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .flatMap((pid) => {
      try {
        const environment = readFileSync(`/proc/${pid}/environ`, "latin1");
        if (!environment.split("\0").includes(`CLOISTER_RUN_DIR=${run}`)) return [];
        return [`${pid} ${readFileSync(`/proc/${pid}/comm`, "latin1").trim()}`];
      } catch {
        // It ended meanwhile.
        return [];
      }
    });
}

function pidOf(pattern: RegExp): number {
  const [found = ""] = ours().filter((name) => pattern.test(name));
  return Number(found.split(" ")[0]);
}

/** After the next command nothing is left: no process, no socket, no file but the lock. */
async function expectNothingLeft(): Promise<void> {
  await expect
    .poll(async () => ({ list: await list(), processes: ours(), files: readdirSync(run) }), {
      timeout: 60_000,
    })
    .toEqual({ list: [], processes: [], files: [".lock"] });
}

describe("a detached enclave", () => {
  test("from its start to its record, by every verb", { timeout: LIMIT_MS }, async () => {
    const started = await detach("obeys", "--name", "app", "--debug", "-p", "0:8080").ended;
    expect(started).toMatchObject({ status: 0, stderr: expect.stringContaining("cloister: ready after") });
    const json1 = JSON.parse(started.stdout);
    expect(Object.keys(json1)).toEqual([
      ...[
        "EnclaveName",
        "EnclaveID",
        "ProcessID",
        "EnclaveCID",
        "NumberOfCPUs",
        "CPUIDs",
        "MemoryMiB",
        "Published",
      ],
    ]);
    expect(json1).toMatchObject({ EnclaveName: "app", MemoryMiB: 64, Published: [{ VsockPort: 8080 }] });
    expect(json1.Published[0].Port).toBeGreaterThan(0);

    const [row] = await list();
    expect(row).toMatchObject({ EnclaveID: json1.EnclaveID, State: "RUNNING", Flags: "DEBUG_MODE" });
    const described = (await json("describe", "--enclave", json1.EnclaveID, "--json")).value as Row & {
      Measurements: object;
    };
    const file = (await json("describe", image("obeys"), "--json")).value as { Measurements: object };
    expect(described.Measurements).toEqual(file.Measurements);
    expect((await cloister("logs", "app").ended).stdout).toContain("hello\n");
    expect((await cloister("console", "--past", "app").ended).stdout).toContain("from the console");

    const following = cloister("logs", "-f", "app");
    const waiting = cloister("wait", "app");
    const stopped = await json("stop", "app");
    expect(stopped.value).toMatchObject({
      EnclaveName: "app",
      Terminated: true,
      End: { By: "stop", Kind: "app", Status: 0 },
    });
    expect(await waiting.ended).toMatchObject({ status: 0, stdout: expect.stringContaining('"bye"') });
    expect((await following.ended).stdout).toContain("hello\n");
    // The supervisor answers all who ask how it ended, and only then ends itself.
    await expect.poll(ours, { timeout: 60_000 }).toEqual([]);

    expect((await cloister("wait", "app").ended).status).toBe(0);
    expect((await cloister("ps").ended).stdout).not.toContain("app");
    expect((await cloister("ps", "-a").ended).stdout).toMatch(/app .* stopped, exit status 0 \(exit\)/);
    expect((await cloister("logs", "--tail", "1", "app").ended).stdout).toContain("exit status 0");
    await cloister("ps", "--prune").ended;
    await expectNothingLeft();
  });

  test("an app that fails: its status is wait's, its last words are kept", {
    timeout: LIMIT_MS,
  }, async () => {
    expect((await detach("fails", "--restart", "on-failure:1").ended).status).toBe(0);
    const waited = await json("wait", "fails");
    expect(waited).toMatchObject({ status: 3, value: { Kind: "app", Status: 3, LastWords: ["bye"] } });
    expect(await list()).toMatchObject([{ EnclaveName: "fails", State: "ENDED", Restarts: 1 }]);
  });

  test("that ends before it serves fails as run does", { timeout: LIMIT_MS }, async () => {
    const { status, stdout, stderr } = await detach("early").ended;
    expect({ status, stdout }).toEqual({ status: 125, stdout: "" });
    expect(stderr).toMatch(
      /error E_APP_ENDED: early: got exit status 4 \(exit\), expected it to be ready\n {2}bye/,
    );
  });

  test("what the launcher meets is told in the words of run", { timeout: LIMIT_MS }, async () => {
    for (const words of [
      ["--memory", "10M"],
      ["--publish", "192.0.2.1:80:80"],
    ]) {
      const [here, there] = [
        await cloister("run", image("stays"), "--emulator", ...words).ended,
        await cloister("run", image("stays"), "--emulator", "--detach", ...words).ended,
      ];
      expect(here).toMatchObject({ status: 125, stderr: expect.stringMatching(/^error E_/) });
      expect(there).toEqual(here);
    }
    await expectNothingLeft();
  });

  test("the parent shuts down", { timeout: LIMIT_MS }, async () => {
    await detach("obeys").ended;
    const [row] = await list();
    process.kill(row?.ProcessID ?? 0, "SIGTERM");
    expect((await json("wait", "obeys")).value).toMatchObject({ By: "shutdown", Kind: "app", Status: 0 });
  });

  test("crashes, by itself or by its hypervisor's end", { timeout: LIMIT_MS }, async () => {
    await detach("crashes").ended;
    const waited = await cloister("wait", "crashes").ended;
    expect(waited).toMatchObject({
      status: 125,
      stderr: expect.stringMatching(/E_ENCLAVE_CRASHED[\s\S]*Kernel panic/),
    });
    await detach("stays").ended;
    process.kill(pidOf(/qemu/), "SIGKILL");
    expect((await cloister("wait", "stays").ended).stderr).toContain("E_ENCLAVE_CRASHED");
    expect((await list()).map(({ End }) => End?.Kind)).toEqual(["crash", "crash"]);
  });

  test("two with one name at once: exactly one", { timeout: LIMIT_MS }, async () => {
    const both = await Promise.all([
      detach("stays", "--name", "app").ended,
      detach("stays", "--name", "app").ended,
    ]);
    expect(both.map(({ status }) => status).sort()).toEqual([0, 125]);
    expect(both.map(({ stderr }) => stderr).join()).toContain(
      "error E_NAME_TAKEN: app: got a running enclave",
    );
    expect(await list()).toHaveLength(1);
  });

  test("a supervisor that does not answer is killed by terminate", { timeout: LIMIT_MS }, async () => {
    await detach("stays").ended;
    const [row] = await list();
    process.kill(row?.ProcessID ?? 0, "SIGSTOP");
    expect((await json("terminate", "--all")).value).toMatchObject([
      { EnclaveName: "stays", Terminated: true },
    ]);
    await expectNothingLeft();
  });
});

describe("kill -9 leaves nothing after the next command", () => {
  const SUPERVISOR = /node|Main/;

  test.each<[stage: string, image: string]>([
    ["memory", "stays"],
    ["started", "silent"],
    ["heartbeat", "stays"],
  ])("of the supervisor at %s", { timeout: LIMIT_MS }, async (stage, name) => {
    const caller = detach(name, "--name", "app");
    await expect.poll(caller.stderr, { timeout: 60_000 }).toContain(`${stage} at`);
    const supervisor = Number(
      ours()
        .find((process) => SUPERVISOR.test(process) && !process.startsWith(`${caller.child.pid} `))
        ?.split(" ")[0],
    );
    process.kill(supervisor, "SIGKILL");
    const { status, stderr } = await caller.ended;
    // It may have been ready already.
    if (stage !== "heartbeat")
      expect({ status, stderr }).toMatchObject({
        status: 125,
        stderr: expect.stringContaining("E_SUPERVISOR_DIED"),
      });
    expect((await cloister("ps").ended).stderr).toContain(`its supervisor ${supervisor} died`);
    await expectNothingLeft();
  });

  test("of whoever started it, before it serves", { timeout: LIMIT_MS }, async () => {
    const caller = detach("silent");
    await expect.poll(caller.stderr, { timeout: 60_000 }).toContain("started at");
    caller.child.kill("SIGKILL");
    await caller.ended;
    await expectNothingLeft();
  });

  test("of QEMU while it boots: told as a crash", { timeout: LIMIT_MS }, async () => {
    const caller = detach("silent");
    await expect.poll(caller.stderr, { timeout: 60_000 }).toContain("started at");
    process.kill(pidOf(/qemu/), "SIGKILL");
    expect(await caller.ended).toMatchObject({
      status: 125,
      stderr: expect.stringContaining("E_ENCLAVE_CRASHED"),
    });
    await expectNothingLeft();
  });

  test("of a foreground run", { timeout: LIMIT_MS }, async () => {
    const launcher = cloister("run", image("stays"), "--emulator", "--verbose");
    await expect.poll(launcher.stderr, { timeout: 60_000 }).toContain("ready after");
    expect(await list()).toMatchObject([{ EnclaveName: "stays", State: "RUNNING" }]);
    launcher.child.kill("SIGKILL");
    await launcher.ended;
    await expectNothingLeft();
  });
});

test("interrupted while it boots: told, and nothing left", { timeout: LIMIT_MS }, async () => {
  const caller = detach("silent");
  await expect.poll(caller.stderr, { timeout: 60_000 }).toContain("started at");
  caller.child.kill("SIGINT");
  expect(await caller.ended).toMatchObject({ status: 125, stderr: expect.stringContaining("E_INTERRUPTED") });
  await expectNothingLeft();
});

test("three supervisors on the ioctl device at once, started, listed, stopped", {
  timeout: LIMIT_MS,
}, async ({ skip }) => {
  const reason = whyNoPages(96);
  if (reason !== undefined) skip(reason);
  const script = `
    const { spawnSync, spawn } = require("node:child_process");
    const cli = [${JSON.stringify(ENTRY)}];
    const started = ["a", "b", "c"].map((name) => new Promise((resolve) => {
      const words = [...cli, "run", ${JSON.stringify(image("stays"))}, "--detach", "--name", name];
      spawn(process.execPath, words, { stdio: ["ignore", "ignore", "inherit"] }).on("exit", resolve);
    }));
    Promise.all(started).then((statuses) => {
      const { stdout } = spawnSync(process.execPath, [...cli, "ps", "--json"], { encoding: "utf8" });
      spawnSync(process.execPath, [...cli, "terminate", "--all"], { stdio: ["ignore", "ignore", "inherit"] });
      console.log(JSON.stringify({ statuses, list: JSON.parse(stdout) }));
    });`;
  const { status, stdout, stderr } = await cloister("emulate", "--", process.execPath, "-e", script).ended;
  expect({ status, stderr }).toMatchObject({ status: 0 });
  const { statuses, list: rows } = JSON.parse(stdout) as { statuses: number[]; list: Row[] };
  expect(statuses).toEqual([0, 0, 0]);
  expect(rows.map(({ EnclaveName, State }) => [EnclaveName, State]).sort()).toEqual(
    ["a", "b", "c"].map((name) => [name, "RUNNING"]),
  );
  expect(new Set(rows.map(({ EnclaveCID }) => EnclaveCID)).size).toBe(3);
  expect((await list()).map(({ End }) => End)).toMatchObject(new Array(3).fill({ By: "terminate" }));
});
