/** `bin/cloister` as a user runs it, processes and all: build, run, signals, kill -9, and messages for what goes wrong. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ROOT } from "./enclave.ts";

/** The system's own Node where there is one: bin/cloister must find the pinned one from there. */
const NODE = existing("/usr/bin/node") ?? process.execPath;
const CLOISTER = join(ROOT, "bin/cloister");
const directory = mkdtempSync(join(tmpdir(), "cloister-command-"));
const eif = join(directory, "app.eif");

function existing(path: string): string | undefined {
  try {
    execFileSync(path, ["--version"], { stdio: "ignore" });
    return path;
  } catch {
    return undefined;
  }
}

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

const runs: Run[] = [];

class Run {
  readonly child: ChildProcess;
  stdout = "";
  stderr = "";
  readonly ended: Promise<Ended>;

  constructor(...words: string[]) {
    this.child = spawn(NODE, [CLOISTER, ...words], { cwd: directory, stdio: ["ignore", "pipe", "pipe"] });
    this.child.stdout?.on("data", (chunk) => {
      this.stdout += chunk;
    });
    this.child.stderr?.on("data", (chunk) => {
      this.stderr += chunk;
    });
    runs.push(this);
    this.ended = once(this.child, "close").then(([status]) => ({
      status,
      stdout: this.stdout,
      stderr: this.stderr,
    }));
  }

  /** Standard output's JSON object, once it is whole; rejects with standard error when the process ends before. */
  async started(): Promise<Started> {
    for (;;) {
      if (this.stdout.trimEnd().endsWith("}")) return JSON.parse(this.stdout);
      const over = await Promise.race([once(this.child.stdout ?? this.child, "data"), this.ended]);
      if (!Array.isArray(over) && !this.stdout.trimEnd().endsWith("}")) throw new Error(this.stderr);
    }
  }
}

interface Started {
  readonly EnclaveName: string;
  readonly EnclaveID: string;
  readonly EnclaveCID: number;
  readonly ProcessID: number;
  readonly Published: readonly {
    readonly Address: string;
    readonly Port: number;
    readonly VsockPort: number;
  }[];
}

const cloister = (...words: string[]) => new Run(...words).ended;

/** Pids of QEMUs that this process's descendants started with our image, found by their parent chain's name. */
function qemusOf(pid: number): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, "latin1");
        return Number(stat.slice(stat.lastIndexOf(")") + 4).split(" ")[0]) === pid;
      } catch {
        // It ended meanwhile.
        return false;
      }
    })
    .map(Number)
    .filter((child) => readFileSync(`/proc/${child}/comm`, "latin1").startsWith("qemu"));
}

const alive = (pid: number) => {
  try {
    return !readFileSync(`/proc/${pid}/stat`, "latin1").includes(") Z ");
  } catch {
    return false;
  }
};

beforeAll(async () => {
  writeFileSync(join(directory, "package.json"), '{"name":"app","type":"module"}');
  writeFileSync(
    join(directory, "app.ts"),
    `console.log("up \\u001b[31m");
process.on("SIGTERM", () => process.exit(9));
export default { fetch: () => new Response("ok") };`,
  );
  const built = await cloister("build", "-o", eif, "--json");
  expect(built.stderr).toBe("");
  const json = JSON.parse(built.stdout);
  expect(json).toMatchObject({
    EifPath: eif,
    Measurements: { PCR0: expect.stringMatching(/^[0-9a-f]{96}$/) },
  });
  const described = JSON.parse((await cloister("describe", eif, "--json")).stdout);
  expect(described).toMatchObject({ EifVersion: 4, CheckCRC: true, Measurements: json.Measurements });
});

afterAll(() => {
  // A failed test leaves its enclave running; one that ended is not signalled.
  for (const { child } of runs) child.kill("SIGKILL");
  rmSync(directory, { recursive: true, force: true });
});

test("run prints nitro-cli's keys, relays, and passes SIGTERM and the app's status on", async () => {
  const run = new Run("run", eif, "--emulator", "--publish", "0:8080", "--name", "mine", "--cid", "77");
  const started = await run.started();
  expect(started).toMatchObject({
    EnclaveName: "mine",
    EnclaveID: expect.stringMatching(/^i-[0-9a-f]+-enc[0-9a-f]+$/),
    EnclaveCID: 77,
    NumberOfCPUs: 2,
    MemoryMiB: 512,
    Published: [{ Address: "127.0.0.1", VsockPort: 8080 }],
  });
  expect(await (await fetch(`http://127.0.0.1:${started.Published[0]?.Port}`)).text()).toBe("ok");
  run.child.kill("SIGTERM");
  const { status, stderr } = await run.ended;
  expect(status).toBe(9);
  // The app's escape sequence is shown, not obeyed.
  expect(stderr).toContain("up \\x1b[31m");
});

test("kill -9 of the launcher leaves no QEMU behind", async () => {
  const run = new Run("run", eif, "--emulator");
  const { ProcessID } = await run.started();
  const qemus = qemusOf(ProcessID);
  expect(qemus.length).toBeGreaterThan(0);
  run.child.kill("SIGKILL");
  await run.ended;
  await expect.poll(() => [ProcessID, ...qemus].filter(alive), { timeout: 30_000 }).toEqual([]);
});

test("a signal while it boots ends the launch, with nothing left", async () => {
  const run = new Run("run", eif, "--emulator", "-v");
  await expect.poll(() => run.stderr, { timeout: 60_000 }).toContain("started at");
  expect(run.stderr).toMatch(/\ncloister: attestation root: \/.*\/root\.pem; cloister attest --root dev\n/);
  run.child.kill("SIGINT");
  expect(await run.ended).toMatchObject({ status: 125, stderr: expect.stringContaining("E_INTERRUPTED") });
});

test("a published port that is taken is named", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  const { status, stderr, stdout } = await cloister("run", eif, "--emulator", "-p", `${port}:8080`, "--json");
  server.close();
  expect([status, JSON.parse(stdout).Error.Code]).toEqual([125, "E_PORT_TAKEN"]);
  expect(stderr).toContain(`127.0.0.1:${port}`);
});

test("an image that is not one, or damaged, is refused with the offset", async () => {
  const bytes = readFileSync(eif);
  const damaged = join(directory, "damaged.eif");
  const rows: [string, Uint8Array, string][] = [
    ["not an EIF", Buffer.from("hello"), "E_EIF_MAGIC"],
    ["truncated", bytes.subarray(0, 5_000_000), "E_EIF_TRUNCATED"],
    ["a flipped bit", flipped(bytes, 6_000_000), "E_EIF_CRC"],
    ["another architecture", flipped(bytes, 7), "E_EIF_CRC"],
  ];
  for (const [name, data, code] of rows) {
    writeFileSync(damaged, data);
    const { status, stderr } = await cloister("run", damaged, "--emulator");
    expect([name, status, stderr.match(/E_\w+/)?.[0]]).toEqual([name, 125, code]);
    expect(stderr).not.toMatch(/^\s+at .*:\d+:\d+/m);
  }
});

function flipped(bytes: Uint8Array, offset: number): Uint8Array {
  const copy = Uint8Array.from(bytes);
  copy[offset] = (copy[offset] ?? 0) ^ 1;
  return copy;
}

test("too little memory is refused with the numbers", async () => {
  const { status, stderr } = await cloister("run", eif, "--emulator", "--memory", "48M");
  expect(status).toBe(125);
  expect(stderr).toMatch(/E_MEMORY\w*: .*48/);
});

test("without QEMU the one command that installs it is printed", async () => {
  const child = spawn(process.execPath, [join(ROOT, "cli/entry.ts"), "run", eif, "--emulator"], {
    env: { PATH: directory },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let stderr = "";
  child.stderr.on("data", (chunk) => {
    stderr += chunk;
  });
  const [status] = await once(child, "close");
  expect([status, stderr]).toEqual([125, expect.stringMatching(/E_QEMU_MISSING[\s\S]*install.*qemu/)]);
});

test.each([
  ["no entry", {}, "E_ENTRY"],
  ["a syntax error", { "app.ts": "const = 1;" }, "E_BUNDLE"],
  ["a missing package", { "app.ts": 'import "no-such-package-anywhere";' }, "E_"],
])("build of %s fails with its code, and writes nothing", async (_, files, code) => {
  const project = mkdtempSync(join(directory, "bad-"));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(project, name), text);
  const { status, stderr } = await cloister("build", "--project", project, "-o", join(project, "out.eif"));
  expect(status).toBe(1);
  expect(stderr).toContain(code);
  expect(stderr).not.toMatch(/^\s+at .*:\d+:\d+/m);
  expect(readdirSync(project).filter((name) => name.includes("eif"))).toEqual([]);
});
