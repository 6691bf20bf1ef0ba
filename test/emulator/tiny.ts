/**
 * The smallest enclave: an init that is a straight line of system calls, assembled here into an ELF executable, so that the
 * emulator and the launcher are tried on a real kernel in two seconds. It has no branches and no error handling.
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { CMDLINE_X86_64, PORT_CONTROL, PORT_HEARTBEAT } from "../../format/abi.ts";
import { type EnclaveMessage, encodeMessage } from "../../format/control.ts";
import { encodeCpio } from "../../format/cpio.ts";
import { encodeEif } from "../../format/eif.ts";
import { encodeMetadata } from "../../format/metadata.ts";

const KERNEL = fileURLToPath(new URL("../../kernel/x86_64/bzImage", import.meta.url));

/** Numbers of syscall(2) on x86_64: arch/x86/entry/syscalls/syscall_64.tbl. */
const NR = {
  read: 0,
  write: 1,
  close: 3,
  pause: 34,
  socket: 41,
  connect: 42,
  exit: 60,
  reboot: 169,
} as const;

/** An argument: a number, or bytes whose address is passed. */
type Argument = number | Uint8Array;
export type Call = readonly [name: keyof typeof NR, ...args: Argument[]];

const AF_VSOCK = 40;
const SOCK_STREAM = 1;
/** linux/reboot.h: magic numbers, LINUX_REBOOT_CMD_RESTART. */
const REBOOT: Call = ["reboot", 0xfee1dead, 672274793, 0x01234567];

/** sockaddr_vm for CID 3 (linux/vm_sockets.h). */
function parentPort(port: number): Uint8Array {
  const address = Buffer.alloc(16);
  address.writeUInt16LE(AF_VSOCK, 0);
  address.writeUInt32LE(port, 4);
  address.writeUInt32LE(3, 8);
  return address;
}

/** Opened in the order of the calls; 0 to 2 are the console. */
export function dial(fd: number, port: number): Call[] {
  return [
    ["socket", AF_VSOCK, SOCK_STREAM, 0],
    ["connect", fd, parentPort(port), 16],
  ];
}

export function print(text: string): Call {
  return ["write", 1, Buffer.from(text), text.length];
}

/** Descriptor 3 afterwards free again. */
export function heartbeat(byte = 0xb7): Call[] {
  return [
    ...dial(3, PORT_HEARTBEAT),
    ["write", 3, Uint8Array.of(byte), 1],
    ["read", 3, new Uint8Array(8), 1],
    ["close", 3],
  ];
}

/** Control channel on descriptor 3: say these, then wait for the parent's bytes `replies` times. */
export function control(messages: readonly EnclaveMessage[], replies: number): Call[] {
  const lines = Buffer.concat(messages.map(encodeMessage));
  const wait: Call = ["read", 3, new Uint8Array(4096), 4096];
  return [
    ...dial(3, PORT_CONTROL),
    ["write", 3, lines, lines.length],
    ...new Array<Call>(replies).fill(wait),
  ];
}

export const restart: Call[] = [REBOOT];
/** PID 1 ends: the kernel panics. */
export const crash: Call[] = [["exit", 1]];
export const hang: Call[] = [["pause"]];

const LOAD_ADDRESS = 0x400000;
const ELF_BYTES = 64 + 56;
/** mov imm64 into rdi, rsi, rdx: REX.W B8+r (Intel SDM vol. 2, MOV). */
const ARGUMENT_OPCODES = [
  [0x48, 0xbf],
  [0x48, 0xbe],
  [0x48, 0xba],
] as const;
const MOV_RAX = [0x48, 0xb8] as const;
const SYSCALL = Uint8Array.of(0x0f, 0x05);

/** A static executable that makes these calls. */
export function assemble(calls: readonly Call[]): Uint8Array {
  const codeBytes = calls.reduce((sum, [, ...args]) => sum + 10 * (1 + args.length) + SYSCALL.length, 0);
  const code: Uint8Array[] = [];
  const data: Uint8Array[] = [];
  let dataEnd = LOAD_ADDRESS + ELF_BYTES + codeBytes;
  for (const [name, ...args] of calls) {
    args.forEach((argument, index) => {
      const opcode = ARGUMENT_OPCODES[index] ?? MOV_RAX;
      if (typeof argument === "number") code.push(move(opcode, argument));
      else {
        code.push(move(opcode, dataEnd));
        data.push(argument);
        dataEnd += argument.length;
      }
    });
    code.push(move(MOV_RAX, NR[name]), SYSCALL);
  }
  return Buffer.concat([elfHeader(dataEnd - LOAD_ADDRESS), ...code, ...data]);
}

function move(opcode: readonly [number, number], value: number): Uint8Array {
  const bytes = Buffer.alloc(10);
  bytes.set(opcode);
  bytes.writeBigUInt64LE(BigInt(value), 2);
  return bytes;
}

/** elf(5): Elf64_Ehdr, and one Elf64_Phdr that loads the whole file readable, writable and executable. */
function elfHeader(fileBytes: number): Buffer {
  const header = Buffer.alloc(ELF_BYTES);
  header.write("\x7fELF\x02\x01\x01", "latin1");
  header.writeUInt16LE(2, 16); // e_type: ET_EXEC
  header.writeUInt16LE(62, 18); // e_machine: EM_X86_64
  header.writeUInt32LE(1, 20); // e_version
  header.writeBigUInt64LE(BigInt(LOAD_ADDRESS + ELF_BYTES), 24); // e_entry
  header.writeBigUInt64LE(64n, 32); // e_phoff
  header.writeUInt16LE(64, 52); // e_ehsize
  header.writeUInt16LE(56, 54); // e_phentsize
  header.writeUInt16LE(1, 56); // e_phnum
  header.writeUInt32LE(1, 64); // p_type: PT_LOAD
  header.writeUInt32LE(7, 68); // p_flags: R, W, X
  header.writeBigUInt64LE(BigInt(LOAD_ADDRESS), 80); // p_vaddr
  header.writeBigUInt64LE(BigInt(fileBytes), 96); // p_filesz
  header.writeBigUInt64LE(BigInt(fileBytes), 104); // p_memsz
  header.writeBigUInt64LE(0x1000n, 112); // p_align
  return header;
}

/** An EIF of 64 MiB whose init makes these calls. */
export function tinyEif(calls: readonly Call[], buildTool = "cloister"): Uint8Array {
  const init = assemble(calls);
  const ramdisk = Buffer.concat([
    ...encodeCpio([
      { type: "directory", path: "dev", mode: 0o755 },
      { type: "character-device", path: "dev/console", mode: 0o600, major: 5, minor: 1 },
      { type: "file", path: "init", mode: 0o755, data: init },
    ]),
  ]);
  const app = Buffer.concat([...encodeCpio([{ type: "directory", path: "app", mode: 0o755 }])]);
  return encodeEif({
    arch: "x86_64",
    defaultMemory: 64n << 20n,
    kernel: readFileSync(KERNEL),
    cmdline: Buffer.from(CMDLINE_X86_64),
    metadata: encodeMetadata({
      ImageName: "tiny",
      ImageVersion: "1",
      BuildMetadata: {
        BuildTime: "2026-11-21T00:00:00+00:00",
        BuildTool: buildTool,
        BuildToolVersion: "1",
        OperatingSystem: "Linux",
        KernelVersion: "6.12",
      },
      DockerInfo: null,
      CustomMetadata: null,
    }),
    ramdisks: [ramdisk, app],
  });
}
