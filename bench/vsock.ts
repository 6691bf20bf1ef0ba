/**
 * Throughput of the emulator's vsock device with a real guest, each way, by size of the write: `node bench/vsock.ts
 * [--mib N] [--runs N]`. Node 26 writes and reads in the enclave, and every byte is checked: by SHA-256 here, against the
 * pattern there. A table on stderr, one JSON value on stdout.
 *
 * Throughput by CPU time says what bounds it: the smaller of the two.
 */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import type { VsockStream } from "../emulator/vsock/stream.ts";
import { startVm, type Vm } from "../test/emulator/vm.ts";
import { pattern } from "../test/emulator/vm-guest.ts";
import { table } from "./image.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
const WRITES = [KIB, 16 * KIB, 31 * KIB, 32 * KIB, 64 * KIB];
/** sysconf(_SC_CLK_TCK), the unit of /proc/pid/stat on every Linux that runs Node. */
const TICKS_PER_SECOND = 100;

interface Measured {
  readonly direction: "enclave to parent" | "parent to enclave";
  readonly writeBytes: number;
  readonly mbPerSecond: number;
  /** The same by CPU time of the guest's machine, and of this process with its checks: what an idle host would give. */
  readonly mbPerQemuSecond: number;
  readonly mbPerOurSecond: number;
}

const block = pattern();

function patternHash(bytes: number): string {
  const hash = createHash("sha256");
  for (let done = 0; done < bytes; done += block.length) hash.update(block.subarray(0, bytes - done));
  return hash.digest("hex");
}

/** user + system time of a process, seconds: fields 14 and 15 of proc(5) stat. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

let port = 2000;

function nextConnection(vm: Vm): { readonly port: number; readonly stream: Promise<VsockStream> } {
  const { promise, resolve } = Promise.withResolvers<VsockStream>();
  port++;
  const listener = vm.device.listen(port, (stream) => {
    listener.close();
    resolve(stream);
  });
  return { port, stream: promise };
}

async function toParent(vm: Vm, bytes: number, write: number): Promise<void> {
  const connection = nextConnection(vm);
  const sending = vm.run({ do: "source", port: connection.port, bytes, write });
  const stream = await connection.stream;
  const hash = createHash("sha256");
  stream.on("data", (chunk: Buffer) => hash.update(chunk));
  await once(stream, "end");
  if (hash.digest("hex") !== patternHash(bytes)) throw new Error("BUG: bytes differ, enclave to parent");
  stream.end();
  await sending;
}

async function toEnclave(vm: Vm, bytes: number, write: number): Promise<void> {
  const connection = nextConnection(vm);
  const receiving = vm.run({ do: "sink", port: connection.port, verify: true });
  const stream = await connection.stream;
  for (let sent = 0; sent < bytes; ) {
    const offset = sent % block.length;
    const chunk = block.subarray(offset, offset + Math.min(write, block.length - offset, bytes - sent));
    sent += chunk.length;
    if (!stream.write(chunk)) await once(stream, "drain");
  }
  stream.end().resume();
  const { bytes: received, isIntact } = await receiving;
  if (received !== bytes || isIntact !== true) throw new Error("BUG: bytes differ, parent to enclave");
}

const WAYS = { "enclave to parent": toParent, "parent to enclave": toEnclave } as const;

async function measure(
  vm: Vm,
  direction: keyof typeof WAYS,
  writeBytes: number,
  bytes: number,
): Promise<Measured> {
  const [start, qemu, ours] = [performance.now(), cpuSeconds(vm.pid), cpuSeconds(process.pid)];
  await WAYS[direction](vm, bytes, writeBytes);
  const megabytes = bytes / 1e6;
  return {
    direction,
    writeBytes,
    mbPerSecond: megabytes / ((performance.now() - start) / 1000),
    mbPerQemuSecond: megabytes / (cpuSeconds(vm.pid) - qemu),
    mbPerOurSecond: megabytes / (cpuSeconds(process.pid) - ours),
  };
}

/** The run in the middle, by throughput. */
async function median(runs: number, run: () => Promise<Measured>): Promise<Measured> {
  const results: Measured[] = [];
  for (let i = 0; i < runs; i++) results.push(await run());
  results.sort((a, b) => a.mbPerSecond - b.mbPerSecond);
  return results[Math.floor(runs / 2)] as Measured;
}

const { values } = parseArgs({ options: { mib: { type: "string" }, runs: { type: "string" } } });
const bytes = Number(values.mib ?? 128) * MIB;
const runs = Number(values.runs ?? 3);

const vm = await startVm();
const results: Measured[] = [];
try {
  for (const direction of Object.keys(WAYS) as (keyof typeof WAYS)[]) {
    for (const write of WRITES) {
      // A kilobyte at a time is slow enough to measure on fewer of them.
      const amount = write === KIB ? bytes / 8 : bytes;
      results.push(await median(runs, () => measure(vm, direction, write, amount)));
    }
  }
} finally {
  await vm.close();
}
const rows = results.map((result) => ({
  direction: result.direction,
  write: `${result.writeBytes / KIB} KiB`,
  "MB/s": round(result.mbPerSecond),
  "MB per QEMU CPU s": round(result.mbPerQemuSecond),
  "MB per our CPU s": round(result.mbPerOurSecond),
}));
console.error(table(rows));
console.log(JSON.stringify({ bytes, runs, results }));

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
