/** A VM with our kernel, Node and `vm-guest.ts` as init, whose vsock is a VsockDevice of this process. */
import { spawn } from "node:child_process";
import { readdirSync, readFileSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { hostTscKhz } from "../../emulator/qemu.ts";
import { VsockDevice } from "../../emulator/vsock/device.ts";
import type { VsockStream } from "../../emulator/vsock/stream.ts";
import { type CpioEntry, encodeCpio } from "../../format/cpio.ts";
import { closeDescriptor } from "../../linux/descriptor.ts";
import { makeLeash } from "../../linux/leash.ts";
import { createMemoryFile } from "../../linux/memory.ts";
import { type Answer, CONTROL_PORT, type Command } from "./vm-guest.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const KERNEL = join(ROOT, "kernel/x86_64");
export const VM_CID = 16;

export interface VmOptions {
  readonly program?: string;
  /** Words before the ones that every machine gets. */
  readonly machine?: readonly string[];
  readonly cpus?: number;
}

export interface Vm {
  readonly device: VsockDevice;
  readonly pid: number;
  /** Run a command in the guest. Rejects where it failed, or the VM ended. */
  run(command: Command): Promise<Answer>;
  /** Serial console so far. */
  console(): string;
  readonly exited: Promise<void>;
  close(): Promise<void>;
}

function initramfs(): Buffer {
  const entries: CpioEntry[] = [
    { type: "character-device", path: "dev/console", mode: 0o600, major: 5, minor: 1 },
    { type: "character-device", path: "dev/null", mode: 0o666, major: 1, minor: 3 },
    { type: "file", path: "bin/node", mode: 0o755, data: readFileSync(process.execPath) },
    { type: "file", path: "package.json", mode: 0o644, data: Buffer.from('{"type":"module"}') },
    {
      type: "file",
      path: "init",
      mode: 0o755,
      data: Buffer.from('#!/bin/node\nawait import("/test/emulator/vm-guest.ts");\n'),
    },
  ];
  for (const folder of ["lib/x86_64-linux-gnu", "lib64"])
    addFolder(entries, join(KERNEL, "base", folder), folder);
  for (const folder of ["linux", "format", "test/emulator"]) addFolder(entries, join(ROOT, folder), folder);
  const folders = new Set<string>();
  for (const { path } of entries) {
    for (let folder = dirname(path); folder !== "."; folder = dirname(folder)) folders.add(folder);
  }
  for (const path of folders) entries.push({ type: "directory", path, mode: 0o755 });
  return Buffer.concat([...encodeCpio(entries)]);
}

function addFolder(entries: CpioEntry[], source: string, target: string): void {
  for (const file of readdirSync(source, { withFileTypes: true })) {
    if (!file.isFile()) continue;
    entries.push({
      type: "file",
      path: `${target}/${file.name}`,
      mode: 0o755,
      data: readFileSync(join(source, file.name)),
    });
  }
}

/** A descriptor with the initramfs behind it. */
function initramfsFile(): number {
  const bytes = initramfs();
  const file = createMemoryFile("initramfs", bytes.length);
  for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done);
  return file;
}

/** Numbers of inherited descriptors in QEMU. */
const DESCRIPTOR = { vsock: 3, initramfs: 4, leash: 5 } as const;

function qemuArguments(options: VmOptions): string[] {
  const cmdline =
    "console=ttyS0 quiet reboot=t panic=-1 pci=off random.trust_cpu=on rootfstype=ramfs " +
    `tsc_early_khz=${hostTscKhz()} tsc=reliable`;
  return [
    ...(options.machine ?? ["-M", "microvm,acpi=off,memory-backend=memory"]),
    ...["-accel", "tcg", "-cpu", "max,erms=off,fsrm=off", "-m", "1024M", "-smp", String(options.cpus ?? 1)],
    ...["-object", "memory-backend-memfd,id=memory,size=1024M,share=on"],
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"],
    ...[
      "-chardev",
      `socket,id=vsock,fd=${DESCRIPTOR.vsock}`,
      "-device",
      "vhost-user-vsock-device,chardev=vsock",
    ],
    ...["-kernel", join(KERNEL, "bzImage"), "-initrd", `/proc/self/fd/${DESCRIPTOR.initramfs}`],
    ...["-append", cmdline],
  ];
}

export async function startVm(options: VmOptions = {}): Promise<Vm> {
  const device = new VsockDevice({ guestCid: VM_CID, onFault: (error) => console.error(error) });
  const control = new Promise<VsockStream>((resolve) => device.listen(CONTROL_PORT, resolve));
  const file = initramfsFile();
  const leash = makeLeash();
  const child = spawn(options.program ?? "qemu-system-x86_64", qemuArguments(options), {
    stdio: ["ignore", "pipe", "pipe", device.qemuDescriptor, file, leash.descriptor],
  });
  if (child.pid !== undefined) leash.hold(child.pid);
  device.closeQemuDescriptor();
  closeDescriptor(file);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on("data", (chunk) => {
      output += chunk;
    });
  }
  const exited = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const ended = exited.then(() => Promise.reject(new Error(`the VM ended\n${output.slice(-4000)}`)));
  ended.catch(() => {});
  const stream = await Promise.race([control, ended]);
  return {
    device,
    pid: child.pid as number,
    console: () => output,
    exited,
    run: commandRunner(stream, ended),
    async close() {
      leash.close();
      await exited;
      device.close();
    },
  };
}

function commandRunner(stream: VsockStream, ended: Promise<never>): Vm["run"] {
  type Reply = { id: number; answer?: Answer; error?: string };
  const waiting = new Map<number, (reply: Reply) => void>();
  const lines = createInterface({ input: stream });
  // readline passes the stream's error on: the VM's end, which `ended` tells.
  lines.on("error", () => {});
  lines.on("line", (line) => {
    const reply = JSON.parse(line) as Reply;
    waiting.get(reply.id)?.(reply);
  });
  let next = 0;
  return async (command) => {
    const id = next++;
    const reply = new Promise<Reply>((resolve) => waiting.set(id, resolve));
    stream.write(`${JSON.stringify({ id, ...command })}\n`);
    const { answer, error } = await Promise.race([reply, ended]);
    waiting.delete(id);
    if (answer === undefined) throw new Error(`guest, ${command.do}: ${error}`);
    return answer;
  };
}
