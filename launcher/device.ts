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
  /** Connect to an enclave, or to CID_HYPERVISOR for a console. Rejects ECONNRESET (refused) or ETIMEDOUT. */
  connect(cid: number, port: number, options?: { timeoutMs?: number }): Promise<VsockStream>;
}

/** An ioctl that the driver refused: `errno` 256–275 are the driver's own (NE_ERR_*), the rest Linux's. */
export class NitroError extends Error {
  readonly ioctl: string;
  readonly errno: number;

  constructor(ioctl: string, errno: number, message: string) {
    super(message);
    this.name = "NitroError";
    this.ioctl = ioctl;
    this.errno = errno;
  }
}

export const NE_ENCLAVE_PRODUCTION_MODE = 0;
export const NE_ENCLAVE_DEBUG_MODE = 1;

/** One enclave slot: the file descriptor that NE_CREATE_VM returns. */
export interface NitroVm {
  readonly slotUid: bigint;
  /** NE_GET_IMAGE_LOAD_INFO for an EIF: where in enclave memory it goes, bytes. */
  imageLoadOffset(): number;
  /** NE_SET_USER_MEMORY_REGION: donate memory of this process. Call in enclave address order. */
  setMemoryRegion(region: MemoryRegion): void;
  /** NE_ADD_VCPU: 0 lets the driver choose. Returns the chosen CPU id. */
  addVcpu(id: number): number;
  /** NE_START_ENCLAVE: cid 0 lets the hypervisor choose. Returns the enclave's CID. */
  start(options: { flags: number; cid: number }): Promise<number>;
  /** Settles when the enclave is gone for whatever reason (POLLHUP on the descriptor). */
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
}

export interface NitroDevice {
  /** NE_CREATE_VM. */
  createVm(): NitroVm;
  /** Anonymous memory that this device accepts, `bytes` long in total, in enclave address order. */
  allocateMemory(bytes: number): MemoryRegion[];
  freeMemory(regions: readonly MemoryRegion[]): void;
  readonly vsock: ParentVsock;
  close(): void;
}
