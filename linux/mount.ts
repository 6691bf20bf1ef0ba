/** mount(2). */
import { bind, check } from "./ffi.ts";

/** linux/mount.h */
export const MS_NOSUID = 2n;
export const MS_NODEV = 4n;
export const MS_NOEXEC = 8n;

const libc = bind({
  mount: { arguments: ["string", "string", "string", "u64", "string"], return: "i32" },
});

export interface Mount {
  readonly source: string;
  readonly target: string;
  readonly type: string;
  readonly flags: bigint;
  /** Options of the file system: `mode=1777`. */
  readonly data: string;
}

/** Mount a file system. Throws SystemError: EBUSY (mounted there already), ENODEV (type not in this kernel). */
export function mount({ source, target, type, flags, data }: Mount): void {
  check(libc.mount(source, target, type, flags, data), "mount", `${type} on ${target}`);
}
