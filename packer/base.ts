/**
 * Ramdisk 0, measured in PCR1: init, Node, its libraries and an empty tree. It is the same for every app of a release,
 * so it is made once a machine and cached.
 */
import { createHash } from "node:crypto";
import { CMDLINE_X86_64 } from "../format/abi.ts";
import { type CpioEntry, encodeCpio } from "../format/cpio.ts";
import { SectionType } from "../format/eif.ts";
import { Measurer } from "../format/measurement.ts";
import { concat } from "../format/struct.ts";
import type { Cache } from "./cache.ts";
import type { Compression } from "./config.ts";
import { stripElf } from "./elf.ts";
import type { Program } from "./program.ts";
import { makeRamdisk, type Ramdisk } from "./ramdisk.ts";
import { NODE, nodeBinary, type Release, readVerified } from "./release.ts";

/** Mount points, homes, and the folders of what follows. Modes as a Linux distribution has them. */
const DIRECTORIES: Readonly<Record<string, number>> = {
  app: 0o755,
  bin: 0o755,
  dev: 0o755,
  etc: 0o755,
  lib: 0o755,
  "lib/x86_64-linux-gnu": 0o755,
  lib64: 0o755,
  proc: 0o555,
  root: 0o700,
  run: 0o755,
  sys: 0o555,
  tmp: 0o1777,
  var: 0o755,
  "var/tmp": 0o1777,
};

/** Node aborts at start when fds 0 to 2 are closed and there is no /dev/null; the kernel opens /dev/console for them. */
const DEVICES = [
  { path: "dev/console", mode: 0o600, major: 5, minor: 1 },
  { path: "dev/null", mode: 0o666, major: 1, minor: 3 },
] as const;

/** What glibc and Node read: without them `localhost`, `os.userInfo()` and numeric group names fail. */
const TEXTS: Readonly<Record<string, string>> = {
  "etc/group": "root:x:0:\n",
  "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n",
  // Without it glibc asks a name server on the loopback for every name that is not in /etc/hosts, and waits.
  "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
  "etc/passwd": "root:x:0:0:root:/root:/sbin/nologin\n",
};

/** How ramdisks are compressed and where they are kept. */
export interface Storage {
  readonly compression: Compression;
  readonly cache: Cache;
}

/** What every EIF of a release begins with. */
export interface Base {
  readonly kernel: Uint8Array;
  readonly cmdline: Uint8Array;
  readonly ramdisk: Ramdisk;
  /** Has seen kernel, cmdline and ramdisk 0. */
  readonly measurer: Measurer;
}

/**
 * The base as it is stored, with its measurement begun: hashing it is most of measuring an image, and need not wait
 * for the app.
 */
export async function makeBase(
  release: Release,
  programs: readonly Program[],
  storage: Storage,
): Promise<Base> {
  const kernel = readVerified(release.kernel.source, release.kernel.sha256);
  const ramdisk = await makeRamdisk(() => encodeBase(release, programs), {
    ...storage,
    key: baseKey(release, programs),
  });
  const cmdline = Buffer.from(CMDLINE_X86_64);
  const measurer = new Measurer(() => createHash("sha384"));
  for (const [type, data] of [
    [SectionType.Kernel, kernel],
    [SectionType.Cmdline, cmdline],
    [SectionType.Ramdisk, ramdisk.data],
  ] as const) {
    measurer.section(type);
    measurer.update(data);
  }
  return { kernel, cmdline, ramdisk, measurer };
}

/** What decides the archive's bytes, as one digest: equal keys mean equal archives. Hexadecimal. */
export function baseKey(release: Release, programs: readonly Program[]): string {
  const hash = createHash("sha256");
  const libraries = release.libraries.map(({ path, mode, sha256 }) => [path, mode, sha256]);
  hash.update(JSON.stringify([NODE.sha256, libraries, DIRECTORIES, DEVICES, TEXTS]));
  for (const { target, mode, data } of programs) {
    hash.update(JSON.stringify([target, mode, data.length])).update(data);
  }
  return hash.digest("hex");
}

/** The uncompressed archive. Throws E_INSTALL when Node or a library is not the pinned one. */
export function encodeBase(release: Release, programs: readonly Program[]): Uint8Array {
  const node = nodeBinary();
  const files: CpioEntry[] = [
    { type: "file", path: "bin/node", mode: 0o755, data: stripElf(readVerified(node, NODE.sha256), node) },
    ...release.libraries.map(({ path, mode, source, sha256 }) =>
      file(path, mode, readVerified(source, sha256)),
    ),
    ...programs.map(({ target, mode, data }) => file(target, mode, data)),
    ...Object.entries(TEXTS).map(([path, text]) => file(path, 0o644, Buffer.from(text))),
  ];
  const directories = Object.entries(DIRECTORIES).map(
    ([path, mode]): CpioEntry => ({ type: "directory", path, mode }),
  );
  const devices = DEVICES.map((device): CpioEntry => ({ type: "character-device", ...device }));
  return concat(encodeCpio([...directories, ...devices, ...files]));
}

function file(path: string, mode: number, data: Uint8Array): CpioEntry {
  return { type: "file", path, mode, data };
}
