/**
 * The seam between the launcher and what starts enclaves: the ioctl device on an EC2 parent, or the emulator.
 * It has the driver's own verbs, order and errors (linux/uapi/linux/nitro_enclaves.h), so that both are driven alike.
 */
import type { Duplex } from "node:stream";

/** A stream from or to an enclave. Half-open is allowed; errors carry Node's codes (ECONNRESET, ETIMEDOUT, …). */
export interface VsockStream extends Duplex {
  /** The other end, as the parent sees it. */
  readonly remoteCid: number;
  readonly remotePort: number;
}

/** AF_VSOCK as the parent instance (CID 3) has it. */
export interface ParentVsock {
  /** Listen on a port of CID_PARENT. Throws EADDRINUSE. */
  listen(port: number, onConnection: (stream: VsockStream) => void): { close(): void };
  /**
   * Listen on a port that other processes on this machine listen on too, each for enclaves of its own: connections come
   * of claimed CIDs only, those that waited too. Rejects with EADDRINUSE. Absent where `listen` is one process's anyway.
   */
  share?(port: number, onConnection: (stream: VsockStream) => void): Promise<SharedListener>;
  /** Connect to an enclave, or to CID_HYPERVISOR for a console. Rejects ECONNRESET (refused) or ETIMEDOUT. */
  connect(cid: number, port: number, options?: { timeoutMs?: number }): Promise<VsockStream>;
  /** As `connect`: the connected descriptor, non-blocking, which is the caller's. Absent where a connection is none. */
  open?(cid: number, port: number): Promise<number>;
}

export interface SharedListener {
  claim(cid: number): void;
  release(cid: number): void;
  /** The port stays open while others have it. Idempotent. */
  close(): void;
}

/** The driver's own error numbers (linux/uapi/linux/nitro_enclaves.h, "NE specific error codes"). */
export const NE_ERR = {
  VCPU_ALREADY_USED: 256,
  VCPU_NOT_IN_CPU_POOL: 257,
  VCPU_INVALID_CPU_CORE: 258,
  INVALID_MEM_REGION_SIZE: 259,
  INVALID_MEM_REGION_ADDR: 260,
  UNALIGNED_MEM_REGION_ADDR: 261,
  MEM_REGION_ALREADY_USED: 262,
  MEM_NOT_HUGE_PAGE: 263,
  MEM_DIFFERENT_NUMA_NODE: 264,
  MEM_MAX_REGIONS: 265,
  NO_MEM_REGIONS_ADDED: 266,
  NO_VCPUS_ADDED: 267,
  ENCLAVE_MEM_MIN_SIZE: 268,
  FULL_CORES_NOT_USED: 269,
  NOT_IN_INIT_STATE: 270,
  INVALID_VCPU: 271,
  NO_CPUS_AVAIL_IN_POOL: 272,
  INVALID_PAGE_SIZE: 273,
  INVALID_FLAG_VALUE: 274,
  INVALID_ENCLAVE_CID: 275,
} as const;

/** An ioctl that the driver refused: `errno` 256–275 are the driver's own (NE_ERR_*), the rest Linux's. */
export class NitroError extends Error {
  readonly ioctl: string;
  readonly errno: number;

  constructor(ioctl: string, errno: number, message: string, options?: { readonly cause: unknown }) {
    super(message, options);
    this.name = "NitroError";
    this.ioctl = ioctl;
    this.errno = errno;
  }
}

export const NE_ENCLAVE_PRODUCTION_MODE = 0;
export const NE_ENCLAVE_DEBUG_MODE = 1;
/** Size and alignment of a memory region, bytes (NE_MIN_MEM_REGION_SIZE). */
export const MEMORY_REGION_UNIT = 2 * 1024 * 1024;

/** One enclave slot: the file descriptor that NE_CREATE_VM returns. */
export interface NitroVm {
  readonly slotUid: bigint;
  /** NE_GET_IMAGE_LOAD_INFO for an EIF: where in enclave memory it goes, bytes. */
  imageLoadOffset(): number;
  /**
   * NE_SET_USER_MEMORY_REGION: donate memory of this process. Call in enclave address order. Its content is undefined
   * from `start` on.
   */
  setMemoryRegion(region: MemoryRegion): void;
  /** NE_ADD_VCPU: 0 lets the driver choose. Returns the chosen CPU id. */
  addVcpu(id: number): number;
  /**
   * NE_START_ENCLAVE: cid 0 lets the hypervisor choose. Returns the enclave's CID. An image that the emulated
   * hypervisor refuses is EINVAL with the reason as `cause`; real hardware gives none.
   */
  start(options: { flags: number; cid: number }): Promise<number>;
  /** Settles when the enclave is gone for whatever reason (POLLHUP on the descriptor), and after `close`. */
  readonly hangup: Promise<void>;
  /** What an emulator can show beyond the hardware: the console's last lines, in production mode too. */
  readonly consoleTail?: () => string;
  /** Close the descriptor: terminates a running enclave, frees the slot. Idempotent. */
  close(): void;
}

export interface MemoryRegion {
  /** Start address in this process, a multiple of 2 MiB. */
  readonly address: bigint;
  /** Bytes, a multiple of 2 MiB. */
  readonly size: number;
  /** The memory itself, to write the image into. Empty once it is freed. */
  readonly bytes: Uint8Array;
}

export interface NitroDevice extends Disposable {
  /** NE_CREATE_VM. */
  createVm(): NitroVm;
  /**
   * Memory that this device accepts, in enclave address order: `bytes` in total, or more where its pages are larger.
   * Throws SystemError ENOMEM.
   */
  allocateMemory(bytes: number): MemoryRegion[];
  freeMemory(regions: readonly MemoryRegion[]): void;
  readonly vsock: ParentVsock;
  /** Closes every enclave of this device too. */
  close(): void;
}
