/**
 * `cloister emulate` seen by a program that is not ours: client.c, static, written against the kernel's headers. Every
 * error of the driver, and whole lives of enclaves.
 */
import { spawn } from "node:child_process";
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { NE_ERR } from "../../launcher/device.ts";
import { compile, whyNoCompiler } from "../gcc.ts";
import { whyNoPages } from "../pages.ts";
import { heartbeat, print, restart, tinyEif } from "./tiny.ts";

const ENTRY = fileURLToPath(new URL("../../cli/entry.ts", import.meta.url));
const LIMIT_MS = 120_000;
/** What client.c maps. */
const PAGES = 32;
const NOBODY = 65534;

const folder = mkdtempSync(join(tmpdir(), "cloister-emulate-"));
const client = join(folder, "client");
const image = join(folder, "tiny.eif");

const noCompiler = whyNoCompiler();

beforeAll(() => {
  if (noCompiler !== undefined) return;
  compile(fileURLToPath(new URL("client.c", import.meta.url)), client);
  writeFileSync(image, tinyEif([print("hello from init\n"), ...heartbeat(), ...restart]));
  chmodSync(folder, 0o755);
});
afterAll(() => rmSync(folder, { recursive: true }));

interface Run {
  readonly status: number | null;
  readonly lines: readonly string[];
  readonly stderr: string;
}

/** `cloister emulate [options] -- words`. */
async function emulate(
  words: readonly string[],
  options: readonly string[] = [],
  uid?: number,
): Promise<Run> {
  const child = spawn(process.execPath, [ENTRY, "emulate", ...options, "--", ...words], {
    stdio: ["ignore", "pipe", "pipe"],
    cwd: "/",
    ...(uid !== undefined && { uid, gid: uid }),
  });
  const exited = new Promise<number | null>((resolve) => child.once("exit", resolve));
  const [stdout, stderr, status] = await Promise.all([text(child.stdout), text(child.stderr), exited]);
  return { status, lines: stdout.trimEnd().split("\n"), stderr };
}

/** Skips where there is no compiler or too few huge pages. */
function needs(skip: (reason: string) => void, pages = 0): void {
  const reason = noCompiler ?? (pages === 0 ? undefined : whyNoPages(pages));
  if (reason !== undefined) skip(reason);
}

const errno = (step: string, number: number) => `${step} errno ${number}`;
const EIO = 5;
const EBADF = 9;
const EAGAIN = 11;
const ENOMEM = 12;
const EFAULT = 14;
const EINVAL = 22;
const ENOTTY = 25;

describe("for a program that knows only the kernel's headers", () => {
  test("the device, the CPU pool and the instance's tag are there", async ({ skip }) => {
    needs(skip);
    expect((await emulate([client, "files"])).lines).toEqual([
      "stat 0",
      "character device 1",
      "access 0",
      errno("no such file", 2),
      "pool 1-63,65-127",
      "tag i-0000000000000000",
      errno("bad path", EFAULT),
    ]);
  });

  test("each step is refused with the driver's number, in the driver's order", async ({ skip }) => {
    needs(skip, PAGES);
    const { lines, stderr } = await emulate([client, "codes"]);
    expect(lines).toEqual([
      errno("vcpu on the device", ENOTTY),
      errno("unknown ioctl", ENOTTY),
      errno("slot at no address", EFAULT),
      errno("create on a slot", ENOTTY),
      errno("image of type 0", NE_ERR.INVALID_FLAG_VALUE),
      errno("image of type 2", NE_ERR.INVALID_FLAG_VALUE),
      "image 8388608",
      errno("region at no address", EFAULT),
      errno("region flags", NE_ERR.INVALID_FLAG_VALUE),
      errno("region size", NE_ERR.INVALID_MEM_REGION_SIZE),
      errno("region alignment", NE_ERR.UNALIGNED_MEM_REGION_ADDR),
      errno("region of the kernel", NE_ERR.INVALID_MEM_REGION_ADDR),
      errno("region of small pages", NE_ERR.MEM_NOT_HUGE_PAGE),
      errno("region of nothing", EFAULT),
      errno("region without a page", ENOMEM),
      errno("start without memory", NE_ERR.NO_MEM_REGIONS_ADDED),
      "region 0",
      errno("region twice", NE_ERR.MEM_REGION_ALREADY_USED),
      errno("start flags", NE_ERR.INVALID_FLAG_VALUE),
      errno("start with CID 1", NE_ERR.INVALID_ENCLAVE_CID),
      errno("start with CID 3", NE_ERR.INVALID_ENCLAVE_CID),
      errno("start with CID any", NE_ERR.INVALID_ENCLAVE_CID),
      errno("start with a long CID", NE_ERR.INVALID_ENCLAVE_CID),
      errno("start with 2 MiB", NE_ERR.ENCLAVE_MEM_MIN_SIZE),
      "regions 0",
      errno("start without a CPU", NE_ERR.NO_VCPUS_ADDED),
      errno("vcpu 9999", NE_ERR.INVALID_VCPU),
      errno("vcpu of core 0", NE_ERR.VCPU_NOT_IN_CPU_POOL),
      "vcpu 1",
      errno("start with half a core", NE_ERR.FULL_CORES_NOT_USED),
      errno("vcpu twice", NE_ERR.VCPU_ALREADY_USED),
      "vcpu of the same core 65",
      errno("start without an image", EINVAL),
      errno("start at no address", EFAULT),
      errno("vcpu of another enclave's core", NE_ERR.VCPU_NOT_IN_CPU_POOL),
      "vcpu of a core that is free again 1",
      errno("ioctl on a file", ENOTTY),
      errno("ioctl on nothing", EBADF),
      errno("vcpu from a child", EIO),
      errno("region from a child", EIO),
    ]);
    // Hardware says no more than EINVAL of an image that it refuses.
    expect(stderr).toContain("got 00 00 00 00, expected 2e 65 69 66 (.eif)");
  });

  test("limits of the parent are options", async ({ skip }) => {
    needs(skip, 3);
    expect((await emulate([client, "limits"], ["--cores", "2", "--regions", "2"])).lines).toEqual([
      "region 0",
      "region 0",
      errno("region over the limit", NE_ERR.MEM_MAX_REGIONS),
      "vcpu 1",
      errno("create", NE_ERR.NO_CPUS_AVAIL_IN_POOL),
      "vcpu 3",
      errno("vcpu of an empty pool", NE_ERR.NO_CPUS_AVAIL_IN_POOL),
    ]);
  });

  test("--fail gives any number, those too that this machine cannot provoke", async ({ skip }) => {
    needs(skip);
    const fail = ["NE_SET_USER_MEMORY_REGION=264", "NE_ADD_VCPU=258", "NE_START_ENCLAVE=ETIMEDOUT"];
    const options = fail.flatMap((fault) => ["--fail", fault]);
    expect((await emulate([client, "faults"], options)).lines).toEqual([
      "image 8388608",
      errno("region", NE_ERR.MEM_DIFFERENT_NUMA_NODE),
      errno("vcpu", NE_ERR.VCPU_INVALID_CPU_CORE),
      errno("start", 110),
    ]);
    const wrong = await emulate([client, "faults"], ["--fail", "NE_ADD_VCPU=0"]);
    expect(wrong).toMatchObject({ status: 2, stderr: expect.stringContaining("E_USAGE") });
  });

  test("nonsense in any argument of any call harms nobody", async ({ skip }) => {
    needs(skip);
    expect((await emulate([client, "nonsense", "20000"])).lines).toEqual([
      "some succeeded 1",
      "and it still works 8388608",
    ]);
  });

  test("AF_VSOCK names, binds and refuses as a parent's does", async ({ skip }) => {
    needs(skip);
    expect((await emulate([client, "sockets"])).lines).toEqual([
      "local cid 3",
      errno("datagram socket", 91),
      "domain 40",
      errno("peer of nobody", 107),
      errno("accept before listen", EINVAL),
      errno("bind to CID 7", 99),
      "bind 0",
      errno("bind again", EINVAL),
      errno("bind the same port", 98),
      "listen 0",
      "bound port 5000",
      "bind a port that was closed 0",
      "listen 0",
      errno("accept of nothing", EAGAIN),
      "bind to any port 0",
      "bound 1",
      errno("connect to no enclave", 104),
      errno("connect to no console", 104),
      "inet socket 1",
    ]);
  });
});

const LIFE = [
  "image 1",
  "vcpu 1",
  "bind 0",
  "listen 0",
  "start 1",
  errno("start again", NE_ERR.NOT_IN_INIT_STATE),
];
const BEAT = ["accept 0", "heartbeat from 16", "peer 16", "read 1", "byte 183", "write 1"];
/** POLLHUP and nothing else. */
const END = ["poll 1", "events 16"];
const AFTER = errno("vcpu after its end", NE_ERR.NOT_IN_INIT_STATE);

const FULL = [
  errno("create", NE_ERR.NO_CPUS_AVAIL_IN_POOL),
  "vcpu 3",
  errno("vcpu of an empty pool", NE_ERR.NO_CPUS_AVAIL_IN_POOL),
];

/** The console's answer and the heartbeat's thread are not in order. */
function sorted(lines: readonly string[]): string[] {
  return [...lines].sort();
}

describe("an enclave's whole life", () => {
  test("heartbeat, console and hangup, while signals interrupt its start", { timeout: LIMIT_MS }, async ({
    skip,
  }) => {
    needs(skip, PAGES);
    const { lines } = await emulate([client, "boot", image, "debug"]);
    expect(sorted(lines)).toEqual(
      sorted([...LIFE, "console 0", ...BEAT, ...END, "console says hello 1", AFTER]),
    );
  });

  test("without debug mode there is no console; no rights are needed", { timeout: LIMIT_MS }, async ({
    skip,
  }) => {
    needs(skip, PAGES);
    const uid = process.getuid?.() === 0 ? NOBODY : undefined;
    const { lines } = await emulate([client, "boot", image], [], uid);
    expect(sorted(lines)).toEqual(sorted([...LIFE, errno("console", 104), ...BEAT, ...END, AFTER]));
  });

  test("ends with its process, also by SIGKILL", { timeout: LIMIT_MS }, async ({ skip }) => {
    needs(skip, PAGES);
    const killed = await emulate([client, "leave", image, "k"], ["-v"]);
    expect(killed).toMatchObject({ status: 137, lines: ["start 1"] });
    expect(killed.stderr).toContain("qemu-system-x86_64");
    // The pool has one core, and the next process gets it.
    const script = `${client} leave ${image} x; ${client} limits`;
    const { lines } = await emulate(["sh", "-c", script], ["--cores", "2"]);
    expect(lines).toEqual(["start 1", "region 0", "region 0", "region over the limit 0", "vcpu 1", ...FULL]);
  });

  test("a daemon keeps it, and emulate waits for the daemon", { timeout: LIMIT_MS }, async ({ skip }) => {
    needs(skip, PAGES);
    const { status, lines } = await emulate([client, "leave", image, "d"]);
    expect(lines).toEqual(["start 1", "daemon saw the end 1"]);
    expect(status).toBe(0);
  });
});

test("the command's status, words and descriptors are its own", async () => {
  expect(await emulate(["sh", "-c", 'echo "$0 $1"; exit 7', "a", "b c"])).toMatchObject({
    status: 7,
    lines: ["a b c"],
  });
  const { lines } = await emulate(["grep", "^SigIgn", "/proc/self/status"]);
  expect(lines).toEqual(["SigIgn:\t0000000000000000"]);
  expect(await emulate(["no-such-program"])).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("E_COMMAND"),
  });
  expect(await emulate([])).toMatchObject({ status: 2 });
  const nested = await emulate([process.execPath, ENTRY, "emulate", "--", "true"]);
  expect(nested).toMatchObject({ status: 1, stderr: expect.stringContaining("E_SECCOMP: true: got no") });
});

test("no process of an ended emulation is left", async ({ skip }) => {
  needs(skip);
  const left = readdirSync("/proc").filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(client);
    } catch {
      return false;
    }
  });
  expect(left).toEqual([]);
});
