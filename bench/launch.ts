/**
 * What launching costs: `node bench/launch.ts [--runs N] [--count N]`. The hello example to its heartbeat and to ready, by
 * the emulator and by ioctl under `cloister emulate`, against QEMU started by hand on the same kernel and ramdisks (whose
 * init gives up at the heartbeat, having no vsock); memory of a detached supervisor; enclaves one after another and four
 * at once, and what is left of them. Tables on stderr, one JSON value on stdout.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { parseArgs } from "node:util";
import { createEmulatedDevice } from "cloister/emulator";
import { launch } from "cloister/launcher";
import { median, table, withImage } from "./image.ts";

const ENTRY = join(import.meta.dirname, "../cli/entry.ts");
const FREE_PAGES = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
const MEMORY_MIB = 256;
const AT_ONCE = 4;
/** What init says where it has no vsock. */
const GIVES_UP = "init: fatal";
const EIF_HEADER_BYTES = 548;
const SECTION_HEADER_BYTES = 12;

const { values } = parseArgs({
  options: { runs: { type: "string", default: "5" }, count: { type: "string", default: "20" } },
});
const scratch = mkdtempSync(join(tmpdir(), "cloister-launch-"));
const run = join(scratch, "run");
const env = {
  ...process.env,
  CLOISTER_RUN_DIR: run,
  // As the published JavaScript: from its second start on no process carries the TypeScript compiler, some 40 MB.
  NODE_COMPILE_CACHE: join(scratch, "cache"),
};

/** Kernel and ramdisks as files, from the section headers (type u16, flags u16, size u64; big-endian). */
function unpack(eifPath: string): { readonly kernel: string; readonly initrd: string } {
  const eif = readFileSync(eifPath);
  const parts: Record<number, Buffer[]> = { 1: [], 3: [] };
  for (let offset = EIF_HEADER_BYTES; offset < eif.length; ) {
    const size = Number(eif.readBigUInt64BE(offset + 4));
    parts[eif.readUInt16BE(offset)]?.push(
      eif.subarray(offset + SECTION_HEADER_BYTES, offset + SECTION_HEADER_BYTES + size),
    );
    offset += SECTION_HEADER_BYTES + size;
  }
  const [kernel, initrd] = [join(scratch, "kernel"), join(scratch, "initrd")];
  writeFileSync(kernel, Buffer.concat(parts[1] ?? []));
  writeFileSync(initrd, Buffer.concat(parts[3] ?? []));
  return { kernel, initrd };
}

/** The emulator's own QEMU command, on files and without vsock. */
async function handCommand(eifPath: string): Promise<string[]> {
  let command: readonly string[] = [];
  const options = {
    onCommand: (argv: readonly string[]) => {
      command = argv;
    },
  };
  using device = createEmulatedDevice(options);
  await using _ = await launch(eifPath, { device, memoryMiB: MEMORY_MIB });
  const { kernel, initrd } = unpack(eifPath);
  const files: Record<string, string> = { "-kernel": kernel, "-initrd": initrd };
  const isVsock = (word = "") => word.includes("id=vsock") || word.startsWith("vhost-user-vsock");
  return command.flatMap((word, index) => {
    if (isVsock(word) || isVsock(command[index + 1])) return [];
    return [files[command[index - 1] ?? ""] ?? word];
  });
}

/** Milliseconds from spawn() until init would have sent the heartbeat. */
async function byHand([program = "", ...args]: readonly string[]): Promise<number> {
  const begin = performance.now();
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit");
  let output = "";
  for await (const chunk of child.stdout) {
    output += String(chunk);
    // The console is interleaved with the kernel's own lines, one byte at a time.
    if (output.includes(GIVES_UP)) break;
  }
  const elapsed = performance.now() - begin;
  child.kill("SIGKILL");
  await exited;
  if (!output.includes(GIVES_UP)) throw new Error(`QEMU by hand ended before the heartbeat:\n${output}`);
  return elapsed;
}

/** Milliseconds since launch() was called, by event. */
async function byCloister(words: readonly string[]): Promise<{ heartbeat: number; ready: number }> {
  const child = spawn(process.execPath, words, { stdio: ["ignore", "ignore", "pipe"], env });
  const exited = once(child, "exit");
  const at = { heartbeat: Number.NaN, ready: Number.NaN };
  for await (const line of createInterface({ input: child.stderr })) {
    const event = line.startsWith("{") ? JSON.parse(line) : {};
    if (event.stage === "heartbeat") at.heartbeat = event.elapsedMs;
    if (event.type !== "ready") continue;
    at.ready = event.elapsedMs;
    child.kill("SIGTERM");
  }
  await exited;
  return at;
}

async function cloister(...words: string[]): Promise<string> {
  const child = spawn(process.execPath, [ENTRY, ...words], { stdio: ["ignore", "pipe", "inherit"], env });
  const [output] = await Promise.all([text(child.stdout), once(child, "exit")]);
  if (child.exitCode !== 0) throw new Error(`cloister ${words.join(" ")}: status ${child.exitCode}`);
  return output;
}

interface Resident {
  /** All its pages, and those that no other process has. */
  readonly rssMB: number;
  readonly ownMB: number;
}

function resident(pid: number): Resident {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  const kib = (name: string) =>
    [...rollup.matchAll(new RegExp(`^${name}:\\s+(\\d+) kB$`, "gm"))].reduce(
      (sum, [, n]) => sum + Number(n),
      0,
    );
  const megabytes = (n: number) => Number((n / 1000).toFixed(1));
  return { rssMB: megabytes(kib("Rss")), ownMB: megabytes(kib("Private_Clean") + kib("Private_Dirty")) };
}

/** A detached enclave to ready: how long the whole command took, and its supervisor. */
async function detached(eifPath: string, name: string): Promise<{ ms: number } & Resident> {
  const begin = performance.now();
  const words = ["--emulator", "--detach", "--name", name, "--memory", `${MEMORY_MIB}M`];
  const { ProcessID } = JSON.parse(await cloister("run", eifPath, ...words));
  return { ms: performance.now() - begin, ...resident(ProcessID) };
}

/** Processes and files that carry our run directory. */
function left(): { processes: number; files: number } {
  const processes = readdirSync("/proc").filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/environ`, "latin1").includes(run);
    } catch {
      // It ended meanwhile.
      return false;
    }
  });
  return { processes: processes.length, files: readdirSync(run).filter((name) => name !== ".lock").length };
}

async function measureBoots(eifPath: string): Promise<Record<string, string | number>[]> {
  const order = ["run", eifPath, "--json", "--memory", `${MEMORY_MIB}M`];
  const ways: Record<string, readonly string[]> = { emulator: [ENTRY, ...order, "--emulator"] };
  if (Number(readFileSync(FREE_PAGES, "utf8")) >= MEMORY_MIB / 2) {
    ways.ioctl = [ENTRY, "emulate", "--", process.execPath, ENTRY, ...order];
  } else console.error("too few huge pages for the ioctl device: not measured");
  const command = await handCommand(eifPath);
  const hand: number[] = [];
  const rounds: Record<string, { heartbeat: number; ready: number }[]> = {};
  // In turn, so that a busy minute is everyone's.
  for (let round = 0; round < Number(values.runs); round++) {
    hand.push(await byHand(command));
    for (const [way, words] of Object.entries(ways))
      rounds[way] = [...(rounds[way] ?? []), await byCloister(words)];
  }
  const heartbeatByHand = median(hand);
  return [
    { way: "by hand", heartbeatMs: Math.round(heartbeatByHand), readyMs: "-", ratio: "1.00" },
    ...Object.entries(rounds).map(([way, runs]) => {
      const heartbeatMs = Math.round(median(runs.map(({ heartbeat }) => heartbeat)));
      const readyMs = Math.round(median(runs.map(({ ready }) => ready)));
      return { way, heartbeatMs, readyMs, ratio: (heartbeatMs / heartbeatByHand).toFixed(2) };
    }),
  ];
}

async function measureSupervisors(eifPath: string): Promise<Record<string, unknown>> {
  const count = Number(values.count);
  const sequential = [];
  for (let index = 0; index < count; index++) {
    sequential.push(await detached(eifPath, "app"));
    await cloister("terminate", "app");
  }
  const begin = performance.now();
  await Promise.all(Array.from({ length: AT_ONCE }, (_, index) => detached(eifPath, `app${index}`)));
  const atOnceMs = performance.now() - begin;
  await cloister("terminate", "--all");
  await cloister("ps", "--prune");
  return {
    oneAfterAnother: { count, medianMs: Math.round(median(sequential.map(({ ms }) => ms))) },
    atOnce: { count: AT_ONCE, ms: Math.round(atOnceMs) },
    supervisor: {
      rssMB: median(sequential.map(({ rssMB }) => rssMB)),
      ownMB: median(sequential.map(({ ownMB }) => ownMB)),
    },
    left: left(),
  };
}

try {
  const result = await withImage({ memory: MEMORY_MIB }, async ({ eifPath }) => {
    const boots = await measureBoots(eifPath);
    console.error(table(boots));
    return { runs: Number(values.runs), boots, ...(await measureSupervisors(eifPath)) };
  });
  console.error(JSON.stringify(result, null, 2));
  console.log(JSON.stringify(result));
} finally {
  await cloister("terminate", "--all");
  rmSync(scratch, { recursive: true, force: true });
}
