/** What is mounted before anything else runs; the configuration, which lies in the ramdisk, says how large /tmp is. */
import { mkdirSync } from "node:fs";
import { constants as os } from "node:os";
import type { EnclaveJson } from "../format/enclave.ts";
import { SystemError } from "../linux/ffi.ts";
import { type Mount, MS_NODEV, MS_NOEXEC, MS_NOSUID, mount } from "../linux/mount.ts";

/** `needed`: without it Node or every app breaks, so the boot ends there. The others cost the app a feature. */
export interface MountRow extends Mount {
  readonly needed: boolean;
}

const STRICT = MS_NOSUID | MS_NODEV | MS_NOEXEC;
const DEVICES = MS_NOSUID | MS_NOEXEC;
const FILES = MS_NOSUID | MS_NODEV;

/**
 * In order: a row's target may lie in an earlier row's file system. /tmp allows exec, for apps that unpack programs. What
 * lies in a tmpfs is memory of the enclave, and without a limit it could be half of it each (tmpfs(5), size).
 */
export function mountRows({ tmpMiB }: Pick<EnclaveJson, "tmpMiB">): readonly MountRow[] {
  const [shm, run, tmp] = ["mode=1777,size=25%", "mode=0755,size=10%", `mode=1777,size=${tmpMiB}M`];
  return [
    { source: "proc", target: "/proc", type: "proc", flags: STRICT, data: "", needed: true },
    { source: "sysfs", target: "/sys", type: "sysfs", flags: STRICT, data: "", needed: false },
    { source: "dev", target: "/dev", type: "devtmpfs", flags: DEVICES, data: "mode=0755", needed: true },
    { source: "shm", target: "/dev/shm", type: "tmpfs", flags: STRICT, data: shm, needed: false },
    {
      source: "devpts",
      target: "/dev/pts",
      type: "devpts",
      flags: DEVICES,
      data: "mode=0620,ptmxmode=0666",
      needed: false,
    },
    { source: "run", target: "/run", type: "tmpfs", flags: STRICT, data: run, needed: true },
    { source: "tmp", target: "/tmp", type: "tmpfs", flags: FILES, data: tmp, needed: true },
  ];
}

/** Mount every row; `complain` gets the ones that failed and are not needed. Throws where a needed one fails. */
export function mountAll(rows: readonly MountRow[], complain: (line: string) => void): void {
  for (const row of rows) {
    try {
      mkdirSync(row.target, { recursive: true });
      mount(row);
    } catch (error) {
      // A kernel with DEVTMPFS_MOUNT has mounted /dev by itself.
      if (error instanceof SystemError && error.errno === os.errno.EBUSY) continue;
      if (row.needed) throw error;
      complain(String(error));
    }
  }
}
