/**
 * The ioctl device on the path it takes on EC2: `cloister run` without --emulator, whose system calls `cloister emulate`
 * answers.
 */
import { spawn } from "node:child_process";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { EnclaveMessage } from "../../format/control.ts";
import { control, hang, heartbeat, print, restart, tinyEif } from "../emulator/tiny.ts";
import { whyNoPages } from "../pages.ts";

const ENTRY = fileURLToPath(new URL("../../cli/entry.ts", import.meta.url));
const SUCCESSION = fileURLToPath(new URL("succession.ts", import.meta.url));
const LIMIT_MS = 240_000;
/** Huge pages of an enclave with 64 MiB. */
const PAGES = 32;
const STATUS = 5;
const NOBODY = 65534;

const folder = mkdtempSync(join(tmpdir(), "cloister-nitro-"));
const ending = join(folder, "ending.eif");
const staying = join(folder, "staying.eif");
const broken = join(folder, "broken.eif");

beforeAll(() => {
  const messages: EnclaveMessage[] = [
    { type: "ready", ports: [], uptimeMs: 1 },
    { type: "exit", status: STATUS, reason: "exit", lastWords: ["bye"] },
  ];
  const image = tinyEif([print("hello from init\n"), ...heartbeat(), ...control(messages, 2), ...restart]);
  writeFileSync(ending, image);
  writeFileSync(staying, tinyEif([...heartbeat(), ...hang]));
  const damaged = Buffer.from(image);
  damaged.writeUInt8(damaged.readUInt8(damaged.length - 1) ^ 1, damaged.length - 1);
  writeFileSync(broken, damaged);
  chmodSync(folder, 0o755);
});
afterAll(() => rmSync(folder, { recursive: true }));

interface Run {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function emulate(
  words: readonly string[],
  options: readonly string[] = [],
  uid?: number,
): Promise<Run> {
  const child = spawn(process.execPath, [ENTRY, "emulate", ...options, "--", process.execPath, ...words], {
    stdio: ["ignore", "pipe", "pipe"],
    cwd: "/",
    ...(uid !== undefined && { uid, gid: uid }),
  });
  const exited = new Promise<number | null>((resolve) => child.once("exit", resolve));
  const [stdout, stderr, status] = await Promise.all([text(child.stdout), text(child.stderr), exited]);
  return { status, stdout, stderr };
}

function needs(skip: (reason: string) => void, pages: number): void {
  const reason = whyNoPages(pages);
  if (reason !== undefined) skip(reason);
}

describe("cloister run on /dev/nitro_enclaves", () => {
  test("from CREATE_VM to the app's exit status, without rights", { timeout: LIMIT_MS }, async ({ skip }) => {
    needs(skip, PAGES);
    const uid = process.getuid?.() === 0 ? NOBODY : undefined;
    const { status, stdout, stderr } = await emulate([ENTRY, "run", ending, "--verbose"], [], uid);
    expect({ status, stderr }).toEqual({
      status: STATUS,
      stderr: expect.stringContaining("cloister: ready after"),
    });
    expect(JSON.parse(stdout)).toMatchObject({
      EnclaveName: "ending",
      EnclaveID: expect.stringMatching(/^i-0{16}-enc[0-9a-f]+$/),
      EnclaveCID: 16,
      NumberOfCPUs: 2,
      CPUIDs: [1, 65],
      MemoryMiB: 64,
    });
    const stages = [...stderr.matchAll(/^cloister: (memory|image|cpus|started|heartbeat) at/gm)];
    expect(stages.map(([, stage]) => stage)).toEqual(["memory", "image", "cpus", "started", "heartbeat"]);
  });

  test("the console in debug mode", { timeout: LIMIT_MS }, async ({ skip }) => {
    needs(skip, PAGES);
    const { status, stderr } = await emulate([ENTRY, "run", ending, "--debug", "--cpus", "4"]);
    expect({ status, stderr }).toEqual({
      status: STATUS,
      stderr: expect.stringContaining("hello from init"),
    });
  });

  test("three at once from three processes: each has its heartbeat and its control channel", {
    timeout: LIMIT_MS,
  }, async ({ skip }) => {
    needs(skip, 3 * PAGES);
    const script = `
      const { spawn } = require("node:child_process");
      for (const name of ["a", "b", "c"]) {
        const words = [${JSON.stringify(ENTRY)}, "run", ${JSON.stringify(ending)}, "--name", name];
        const child = spawn(process.execPath, words, { stdio: ["ignore", "ignore", "inherit"] });
        child.on("exit", (status) => console.log(name, status));
      }`;
    const { stdout, stderr } = await emulate(["-e", script]);
    const lines = stdout.trim().split("\n").sort();
    expect({ lines, stderr }).toMatchObject({ lines: ["a", "b", "c"].map((name) => `${name} ${STATUS}`) });
  });

  test("a launcher that held the shared ports is killed: the next one starts all the same", {
    timeout: LIMIT_MS,
  }, async ({ skip }) => {
    needs(skip, 3 * PAGES);
    const { status, stdout } = await emulate([SUCCESSION, ENTRY, staying, ending]);
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ cid: "18", status: STATUS });
  });
});

describe("what goes wrong is told by its own error", () => {
  const FAILED = 125;

  test.each<[fault: string, code: string]>([
    ["NE_CREATE_VM=272", "E_NE_NO_CPUS_AVAIL_IN_POOL"],
    ["NE_GET_IMAGE_LOAD_INFO=ENOTTY", "E_NE_UNKNOWN_IOCTL"],
    ["NE_SET_USER_MEMORY_REGION=265", "E_NE_MEM_MAX_REGIONS"],
    ["NE_ADD_VCPU=256", "E_NE_VCPU_ALREADY_USED"],
    ["NE_START_ENCLAVE=ETIMEDOUT", "E_NE_TIMEOUT"],
  ])("%s", async (fault, code) => {
    const { status, stderr } = await emulate([ENTRY, "run", ending], ["--fail", fault]);
    // Where pages are lacking, memory comes before the ioctls that are about it.
    expect(stderr).toMatch(new RegExp(`^error (${code}|E_HUGE_PAGES)`, "m"));
    expect(status).toBe(FAILED);
  });

  test("the driver's own numbers by name", async () => {
    const { stderr } = await emulate([ENTRY, "run", ending], ["--fail", "NE_CREATE_VM=272"]);
    expect(stderr).toContain("NE_CREATE_VM: got NE_ERR_NO_CPUS_AVAIL_IN_POOL, expected success");
  });

  test("an image that the hypervisor refuses: EINVAL and no reason, as on hardware", async ({ skip }) => {
    needs(skip, PAGES);
    const { status, stderr } = await emulate([ENTRY, "run", broken]);
    expect(status).toBe(FAILED);
    expect(stderr).toContain("error E_NE_INVALID: NE_START_ENCLAVE: got EINVAL");
  });

  test("more memory than there are huge pages", async () => {
    const { status, stderr } = await emulate([ENTRY, "run", ending, "--memory", "900G"]);
    expect(status).toBe(FAILED);
    expect(stderr).toMatch(
      /error E_HUGE_PAGES: free huge pages: got .* expected 900 GiB in all\n {2}fix: Reserve pages: echo/,
    );
  });
});
