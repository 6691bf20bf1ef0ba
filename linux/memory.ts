/** Memory that processes share: memfd_create(2), ftruncate(2), mmap(2), munmap(2), madvise(2), mbind(2). */
import { closeDescriptor } from "./descriptor.ts";
import { bind, check, errno, ffi, SystemError } from "./ffi.ts";

const libc = bind({
  memfd_create: { arguments: ["string", "u32"], return: "i32" },
  ftruncate: { arguments: ["i32", "i64"], return: "i32" },
  mmap: { arguments: ["u64", "u64", "i32", "i32", "i32", "i64"], return: "u64" },
  munmap: { arguments: ["u64", "u64"], return: "i32" },
  madvise: { arguments: ["u64", "u64", "i32"], return: "i32" },
  syscall: { arguments: ["i64", "u64", "u64", "i64", "buffer", "u64", "u64"], return: "i64" },
});

/** linux/memfd.h */
const MFD_CLOEXEC = 0x1;
const MFD_HUGETLB = 0x4;

/** asm-generic/mman-common.h, linux/mman.h; the same on x86_64 and aarch64. */
const PROT_READ = 0x1;
const PROT_WRITE = 0x2;
const MAP_SHARED = 0x01;
const MAP_PRIVATE = 0x02;
const MAP_ANONYMOUS = 0x20;
const MAP_HUGETLB = 0x4_0000;
/** log2 of the page size in bits 26 to 31 (linux/mman.h MAP_HUGE_SHIFT, memfd_create(2)): 21 is 2 MiB. */
const HUGE_SHIFT = 26;
const HUGE_2MIB = 2 ** 21;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

/** madvise(2) advice. */
export const MADV_DONTNEED = 4;
export const MADV_REMOVE = 9;
export const MADV_DONTFORK = 10;
export const MADV_HUGEPAGE = 14;
export const MADV_DONTDUMP = 16;

export interface PageOptions {
  /**
   * Pages of this many bytes from the huge page pool, true for 2 MiB (vm.nr_hugepages); ENOMEM where it has too few,
   * EINVAL for a size that the kernel has not. Default false.
   */
  readonly hugePages?: boolean | number;
}

/** `flag` with the page size, or 0 for ordinary pages. */
function hugeFlags(flag: number, { hugePages = false }: PageOptions): number {
  if (hugePages === false) return 0;
  return flag | (Math.log2(hugePages === true ? HUGE_2MIB : hugePages) << HUGE_SHIFT);
}

/** An anonymous file of `bytes` zero bytes. The caller owns the descriptor (close-on-exec). */
export function createMemoryFile(name: string, bytes: number, options: PageOptions = {}): number {
  const flags = MFD_CLOEXEC | hugeFlags(MFD_HUGETLB, options);
  const fd = check(libc.memfd_create(name, flags), "memfd_create", name);
  try {
    check(libc.ftruncate(fd, BigInt(bytes)), "ftruncate", `${name}, ${bytes}`);
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
  return fd;
}

/** Mapped memory. After `unmap()` every view of `bytes.buffer` is empty, so a late access reads nothing. */
export class Mapping {
  readonly address: bigint;
  readonly size: number;
  #bytes: Uint8Array<ArrayBuffer>;

  constructor(address: bigint, size: number) {
    this.address = address;
    this.size = size;
    this.#bytes = new Uint8Array(ffi.toArrayBuffer(address, size, false));
  }

  /** The memory itself, not a copy: other processes see writes at once. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes;
  }

  /** Idempotent. */
  unmap(): void {
    if (this.#bytes.buffer.detached) return;
    // Detached first: a view that outlived the mapping would otherwise end the process with SIGSEGV.
    this.#bytes.buffer.transfer(0);
    this.#bytes = new Uint8Array(0);
    check(libc.munmap(this.address, BigInt(this.size)), "munmap");
  }
}

/** Map `size` bytes of a file from `offset` on (both multiples of its page size), shared. The descriptor stays the caller's. */
export function mapShared(fd: number, size: number, offset = 0): Mapping {
  return map(size, MAP_SHARED, fd, offset);
}

/** Private zeroed memory. */
export function mapAnonymous(size: number, options: PageOptions = {}): Mapping {
  return map(size, MAP_PRIVATE | MAP_ANONYMOUS | hugeFlags(MAP_HUGETLB, options), -1, 0);
}

function map(size: number, flags: number, fd: number, offset: number): Mapping {
  const address = libc.mmap(0n, BigInt(size), PROT_READ | PROT_WRITE, flags, fd, BigInt(offset));
  if (address === MAP_FAILED) throw new SystemError("mmap", errno(), `${size} bytes at ${offset}`);
  return new Mapping(address, size);
}

/** Tell the kernel how a range of mapped memory will be used. `advice`: MADV_*. */
export function adviseMemory(address: bigint, size: number, advice: number): void {
  check(libc.madvise(address, BigInt(size), advice), "madvise", String(advice));
}

/** asm/unistd_64.h, asm-generic/unistd.h; glibc has no function for it. */
const SYS_MBIND = process.arch === "arm64" ? 235n : 237n;
/** linux/mempolicy.h: where that node has none left, others will do, and nobody gets SIGBUS. */
const MPOL_PREFERRED = 1n;
/** MAX_NUMNODES is at most 1024 (x86's and arm64's CONFIG_NODES_SHIFT). */
const NODES_MAX = 1024;

/** Take a range's pages, not touched so far, from one NUMA node where it has them. Throws SystemError. */
export function preferNode(address: bigint, size: number, node: number): void {
  const mask = new Uint8Array(NODES_MAX / 8);
  mask[node >> 3] = 1 << (node & 7);
  const result = libc.syscall(SYS_MBIND, address, BigInt(size), MPOL_PREFERRED, mask, BigInt(NODES_MAX), 0n);
  check(Number(result), "mbind", `node ${node}`);
}
