/** The files that a parent instance has and this machine has not: they can be opened, looked at and read. */
import { writeSync } from "node:fs";
import { closeDescriptor, O_CLOEXEC } from "../../linux/descriptor.ts";
import { ENCLAVES_DEVICE } from "../../linux/enclaves.ts";
import { createMemoryFile } from "../../linux/memory.ts";
import { identify } from "../../linux/peer.ts";
import type { Call } from "./call.ts";

const VSOCK_DEVICE = "/dev/vsock";
const CPU_POOL = "/sys/module/nitro_enclaves/parameters/ne_cpus";
const ASSET_TAG = "/sys/devices/virtual/dmi/id/board_asset_tag";
/** nitro-cli's own name for a parent that does not tell its instance id. */
const INSTANCE_ID = "i-0000000000000000";

/** sys/stat.h */
const S_IFCHR = 0o020000;
const S_IFREG = 0o100000;
/** The driver's mode, with the group's rights for all: the command runs as who it runs. */
const DEVICE_MODE = S_IFCHR | 0o666;
const TEXT_MODE = S_IFREG | 0o644;
const MISC_MAJOR = 10;
/** Each emulation has devices of its own: launchers tell by the inode whose vsock ports they share. */
const INODE = process.pid;

export class Files {
  readonly #devices: ReadonlyMap<string, number>;
  readonly #texts: ReadonlyMap<string, string>;
  /** What copies of a device's descriptor are known by. */
  readonly #identities: ReadonlyMap<string, string>;

  /** `pool`: the CPU pool, `1-3,5`. Throws SystemError EMFILE. */
  constructor(pool: string) {
    this.#devices = new Map(
      [ENCLAVES_DEVICE, VSOCK_DEVICE].map((path) => [path, createMemoryFile(path.slice("/dev/".length), 0)]),
    );
    this.#identities = new Map([...this.#devices].map(([path, fd]) => [identify("self", fd), path]));
    this.#texts = new Map([
      [CPU_POOL, `${pool}\n`],
      [ASSET_TAG, `${INSTANCE_ID}\n`],
    ]);
  }

  /** open(2) and its kin: `path` and `flags` are the numbers of the arguments; undefined flags are 0. */
  open(call: Call, path: number, flags: bigint): void {
    const name = call.path(path) ?? "";
    const device = this.#devices.get(name);
    const text = this.#texts.get(name);
    const closeOnExec = Number(flags) & O_CLOEXEC;
    if (device !== undefined) call.give(device, closeOnExec);
    else if (text !== undefined) giveText(call, name, text, closeOnExec);
    else call.proceed();
  }

  /** access(2) and its kin. */
  access(call: Call, path: number): void {
    if (this.#mode(call.path(path)) === undefined) call.proceed();
    else call.succeed();
  }

  /** stat(2) and its kin: `path` and `buffer` are the numbers of the arguments. */
  stat(call: Call, path: number, buffer: number, encode: (mode: number) => Uint8Array): void {
    const mode = this.#mode(call.path(path));
    if (mode === undefined) {
      call.proceed();
      return;
    }
    call.write(call.word(buffer), encode(mode));
    call.succeed();
  }

  #mode(path = ""): number | undefined {
    if (this.#devices.has(path)) return DEVICE_MODE;
    return this.#texts.has(path) ? TEXT_MODE : undefined;
  }

  isEnclavesDevice(identity: string): boolean {
    return this.#identities.get(identity) === ENCLAVES_DEVICE;
  }

  isVsockDevice(identity: string): boolean {
    return this.#identities.get(identity) === VSOCK_DEVICE;
  }

  close(): void {
    for (const fd of this.#devices.values()) closeDescriptor(fd);
  }
}

function giveText(call: Call, path: string, text: string, flags: number): void {
  const fd = createMemoryFile(path.slice(1).replaceAll("/", "-"), 0);
  try {
    writeSync(fd, text, 0);
    call.give(fd, flags);
  } finally {
    closeDescriptor(fd);
  }
}

/** struct stat of x86_64 (asm/stat.h), 144 bytes: ino u64 at 8, nlink u64 at 16, mode u32 at 24, rdev u64 at 40, blksize i64 at 56. */
export function encodeStat(mode: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(144));
  view.setBigUint64(8, BigInt(INODE), true);
  view.setBigUint64(16, 1n, true);
  view.setUint32(24, mode, true);
  if ((mode & S_IFCHR) !== 0 && (mode & S_IFREG) === 0) view.setBigUint64(40, BigInt(MISC_MAJOR << 8), true);
  view.setBigInt64(56, 4096n, true);
  return new Uint8Array(view.buffer);
}

/** struct statx (linux/stat.h), 256 bytes: mask u32, blksize u32, nlink u32 at 16, mode u16 at 28, ino u64 at 32, rdev_major u32 at 128. */
export function encodeStatx(mode: number): Uint8Array {
  const STATX_TYPE_MODE_NLINK_INO = 0x107;
  const view = new DataView(new ArrayBuffer(256));
  view.setUint32(0, STATX_TYPE_MODE_NLINK_INO, true);
  view.setUint32(4, 4096, true);
  view.setUint32(16, 1, true);
  view.setUint16(28, mode, true);
  view.setBigUint64(32, BigInt(INODE), true);
  if ((mode & S_IFCHR) !== 0 && (mode & S_IFREG) === 0) view.setUint32(128, MISC_MAJOR, true);
  return new Uint8Array(view.buffer);
}
