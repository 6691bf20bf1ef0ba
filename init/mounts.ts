/** What is mounted before anything else runs. */
import { mkdirSync } from "node:fs";
import { constants as os } from "node:os";
import { SystemError } from "../linux/ffi.ts";
import { type Mount, MS_NODEV, MS_NOEXEC, MS_NOSUID, mount } from "../linux/mount.ts";

/** `needed`: without it Node or every app breaks, so the boot ends there. The others cost the app a feature. */
export interface MountRow extends Mount {
  readonly needed: boolean;
}

const STRICT = MS_NOSUID | MS_NODEV | MS_NOEXEC;
const DEVICES = MS_NOSUID | MS_NOEXEC;
const FILES = MS_NOSUID | MS_NODEV;

/** In order: a row's target may lie in an earlier row's file system. /tmp allows exec, for apps that unpack programs. */
export const MOUNTS: readonly MountRow[] = [
  { source: "proc", target: "/proc", type: "proc", flags: STRICT, data: "", needed: true },
  { source: "sysfs", target: "/sys", type: "sysfs", flags: STRICT, data: "", needed: false },
  { source: "dev", target: "/dev", type: "devtmpfs", flags: DEVICES, data: "mode=0755", needed: true },
  { source: "shm", target: "/dev/shm", type: "tmpfs", flags: STRICT, data: "mode=1777", needed: false },
  {
    source: "devpts",
    target: "/dev/pts",
    type: "devpts",
    flags: DEVICES,
    data: "mode=0620,ptmxmode=0666",
    needed: false,
  },
  { source: "run", target: "/run", type: "tmpfs", flags: STRICT, data: "mode=0755", needed: true },
  { source: "tmp", target: "/tmp", type: "tmpfs", flags: FILES, data: "mode=1777", needed: true },
];

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
