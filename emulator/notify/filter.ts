/**
 * Which system calls of the command the emulator answers: those that can concern /dev/nitro_enclaves or AF_VSOCK. All
 * others run at native speed. Classic BPF over struct seccomp_data (seccomp(2)); x86_64.
 */
import { NE_IOCTL } from "../../linux/enclaves.ts";
import type { Instruction } from "../../linux/seccomp.ts";

/** asm/unistd_64.h */
export const SYSCALL = {
  open: 2,
  stat: 4,
  lstat: 6,
  ioctl: 16,
  access: 21,
  socket: 41,
  connect: 42,
  accept: 43,
  bind: 49,
  listen: 50,
  getsockname: 51,
  getpeername: 52,
  setsockopt: 54,
  getsockopt: 55,
  openat: 257,
  newfstatat: 262,
  faccessat: 269,
  accept4: 288,
  statx: 332,
  openat2: 437,
  faccessat2: 439,
} as const;

export type Syscall = keyof typeof SYSCALL;

export const AF_VSOCK = 40;
export const SOL_SOCKET = 1;
export const SO_DOMAIN = 39;
/** ioctl of /dev/vsock. */
export const IOCTL_VM_SOCKETS_GET_LOCAL_CID = 0x7b9;

/** Calls whose every use is looked at: a filter sees numbers, not paths, and not what a descriptor is. */
const ALWAYS: readonly Syscall[] = [
  ...(["open", "openat", "openat2", "stat", "lstat", "newfstatat", "statx"] as const),
  ...(["access", "faccessat", "faccessat2"] as const),
  ...(["connect", "accept", "accept4", "bind", "listen", "getsockname", "getpeername"] as const),
];

/** linux/audit.h: EM_X86_64 | __AUDIT_ARCH_64BIT | __AUDIT_ARCH_LE. */
const AUDIT_ARCH_X86_64 = 0xc000_003e;
/** linux/seccomp.h */
const SECCOMP_RET_USER_NOTIF = 0x7fc0_0000;
const SECCOMP_RET_ALLOW = 0x7fff_0000;
/** struct seccomp_data: number, architecture, then each argument's low half. */
const NUMBER = 0;
const ARCHITECTURE = 4;
const argument = (index: number) => 16 + index * 8;

/** linux/bpf_common.h: BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K. */
const load = (offset: number): Instruction => ({ code: 0x20, jt: 0, jf: 0, k: offset });
const result = (k: number): Instruction => ({ code: 0x06, jt: 0, jf: 0, k });
const equals = (k: number, jt: number, jf: number): Instruction => ({ code: 0x15, jt, jf, k });

const ALLOW = result(SECCOMP_RET_ALLOW);
const NOTIFY = result(SECCOMP_RET_USER_NOTIF);

/** Where the accumulator is `value`, run these instructions, which must end in a result. */
function when(value: number, body: readonly Instruction[]): Instruction[] {
  return [equals(value, 0, body.length), ...body];
}

/** For the call: notify where the argument is one of these values. */
function whenArgument(call: Syscall, index: number, values: readonly number[]): Instruction[] {
  const body = [load(argument(index)), ...values.flatMap((value) => when(value, [NOTIFY])), ALLOW];
  return when(SYSCALL[call], body);
}

/** The program. */
export function notifyFilter(): Instruction[] {
  return [
    load(ARCHITECTURE),
    equals(AUDIT_ARCH_X86_64, 1, 0),
    ALLOW,
    load(NUMBER),
    ...ALWAYS.flatMap((call) => when(SYSCALL[call], [NOTIFY])),
    ...whenArgument("ioctl", 1, [...Object.values(NE_IOCTL), IOCTL_VM_SOCKETS_GET_LOCAL_CID]),
    ...whenArgument("socket", 0, [AF_VSOCK]),
    ...whenArgument("setsockopt", 1, [AF_VSOCK]),
    ...when(SYSCALL.getsockopt, [
      load(argument(1)),
      ...when(AF_VSOCK, [NOTIFY]),
      equals(SOL_SOCKET, 1, 0),
      ALLOW,
      load(argument(2)),
      ...when(SO_DOMAIN, [NOTIFY]),
      ALLOW,
    ]),
    ALLOW,
  ];
}
