/** A machine's process: its console, its end, and that it never outlives us. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import { type Machine, startMachine } from "../../emulator/machine.ts";
import { hang, tinyEif } from "./tiny.ts";

const folder = mkdtempSync(join(tmpdir(), "cloister-machine-"));
afterAll(() => rmSync(folder, { recursive: true }));

const nothing = openSync("/dev/null", "r+");
const started: { kill(): unknown }[] = [];
afterEach(() => {
  for (const process of started.splice(0)) process.kill();
});

async function start(program: string, args: readonly string[]): Promise<Machine> {
  const machine = await startMachine({ program, args, vsock: nothing, kernel: nothing, initramfs: nothing });
  started.push(machine);
  return machine;
}

test("its output and its errors are the console, complete when it has exited", async () => {
  const machine = await start("/bin/sh", ["-c", "echo out; echo err >&2; exit 3"]);
  await machine.exited;
  expect(machine.console.tail().split("\n").sort()).toEqual(["", "err", "out"]);
});

test("kill ends it", async () => {
  const machine = await start("/bin/sleep", ["1000"]);
  machine.kill();
  await machine.exited;
  expect(isAlive(machine.pid)).toBe(false);
});

test("a program that cannot be started", async () => {
  await expect(start(join(folder, "absent"), [])).rejects.toMatchObject({ code: "ENOENT" });
  writeFileSync(join(folder, "plain"), "");
  await expect(start(join(folder, "plain"), [])).rejects.toMatchObject({ code: "EACCES" });
});

describe("dies with us", () => {
  // Not a descendant's job: whoever starts machines in numbers must not collect descriptors either.
  test("descriptors are given back", async () => {
    const before = readdirCount();
    for (let n = 0; n < 5; n++) await (await start("/bin/true", [])).exited;
    expect(readdirCount()).toBeLessThanOrEqual(before);
  });

  const eif = join(folder, "hang.eif");
  writeFileSync(eif, tinyEif(hang));

  test.each([
    ["SIGKILL", "program", ["/bin/sh", "-c", 'trap "" HUP INT IO PIPE TERM; exec sleep 1000']],
    ["SIGTERM", "program", ["/bin/sleep", "1000"]],
    ["SIGKILL", "enclave", [eif]],
  ] as const)("%s: %s %j", async (signal, kind, args) => {
    const launcher = spawn(
      process.execPath,
      [fileURLToPath(new URL("child.ts", import.meta.url)), kind, ...args],
      {
        stdio: ["ignore", "pipe", "inherit"],
      },
    );
    started.push(launcher);
    const pid = Number(await firstLine(launcher));
    expect(isAlive(pid)).toBe(true);
    started.push({ kill: () => isAlive(pid) && process.kill(pid, "SIGKILL") });
    launcher.kill(signal);
    await once(launcher, "exit");
    await gone(pid);
  });
});

async function firstLine(child: ChildProcess): Promise<string> {
  for await (const chunk of child.stdout ?? []) return String(chunk);
  throw new Error("no output");
}

/** Settles when the process is gone; the test's own deadline fails it else. */
async function gone(pid: number): Promise<void> {
  while (isAlive(pid)) await new Promise(setImmediate);
}

/** A zombie is dead: whether someone reaps it is the system's business. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

function readdirCount(): number {
  return readdirSync("/proc/self/fd").length;
}
