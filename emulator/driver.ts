/**
 * The rules of the Nitro Enclaves driver: what each ioctl checks, in which order, and the error it gives. Pure state;
 * how arguments and memory reach it is the caller's matter (calls of this process, or system calls of another one).
 *
 * Source: Linux drivers/virt/nitro_enclaves/ne_misc_dev.c (6.12), one method an ioctl, checks in the order there.
 * Integers are the raw u64 and u32 of the ioctl structs.
 */
import { randomBytes } from "node:crypto";
import { constants } from "node:os";
import { CID_ANY, CID_HOST, CID_PARENT, EIF_LOAD_OFFSET, ENCLAVE_MEMORY_MIN } from "../format/abi.ts";
import { MEMORY_REGION_UNIT, NE_ERR, NitroError } from "../launcher/device.ts";
import type { CpuPool } from "./cpus.ts";

const REGION_UNIT = BigInt(MEMORY_REGION_UNIT);
/** NE_EIF_IMAGE, the only image type. */
const EIF_IMAGE = 1n;
/** One more than the highest NE_ENCLAVE_DEBUG_MODE flag value. */
const START_FLAGS_END = 2n;
/** End of user addresses on x86_64 with 4-level page tables (TASK_SIZE_MAX); access_ok refuses what passes it. */
const USER_ADDRESS_END = 0x7fff_ffff_f000n;

export interface UserMemoryRegion {
  readonly flags: bigint;
  readonly size: bigint;
  readonly address: bigint;
}

/**
 * Looks at the pages behind a region: answers how many physically contiguous pieces they are, or throws a NitroError
 * (EFAULT, MEM_NOT_HUGE_PAGE, INVALID_PAGE_SIZE, MEM_DIFFERENT_NUMA_NODE). `owner`: as given to createSlot.
 */
export type PageCheck = (region: UserMemoryRegion, owner: number) => number;

export interface DriverOptions {
  readonly cpus: CpuPool;
  /** What the device answers to SLOT_ALLOC; the number of real hardware is not published. */
  readonly maxMemoryRegions: number;
  readonly checkPages: PageCheck;
}

export class Driver {
  readonly #options: DriverOptions;

  constructor(options: DriverOptions) {
    this.#options = options;
  }

  /** NE_CREATE_VM. `owner` stands for the caller's address space: later calls from another one get EIO. */
  createSlot(owner: number): Slot {
    if (!this.#options.cpus.hasFreeCore()) {
      throw refusal("NE_CREATE_VM", NE_ERR.NO_CPUS_AVAIL_IN_POOL, "no CPU is left in the pool");
    }
    return new Slot(this.#options, owner);
  }
}

/** One enclave slot, from NE_CREATE_VM to the close of its descriptor. */
export class Slot {
  /** Never 0: the driver takes 0 for "no slot". */
  readonly uid: bigint = randomBytes(8).readBigUInt64BE() | 1n;
  readonly regions: UserMemoryRegion[] = [];
  readonly #options: DriverOptions;
  readonly #owner: number;
  readonly #cpus: ReturnType<CpuPool["forEnclave"]>;
  #state: "init" | "running" | "stopped" = "init";
  #regionCount = 0;

  constructor(options: DriverOptions, owner: number) {
    this.#options = options;
    this.#owner = owner;
    this.#cpus = options.cpus.forEnclave();
  }

  /** It ran, or its descriptor was closed. */
  get isStopped(): boolean {
    return this.#state === "stopped";
  }

  get cpuIds(): readonly number[] {
    return this.#cpus.ids;
  }

  /** Bytes of all regions. */
  get memorySize(): bigint {
    return this.regions.reduce((sum, region) => sum + region.size, 0n);
  }

  /** NE_GET_IMAGE_LOAD_INFO: offset of an image of this type in enclave memory, bytes. */
  imageLoadInfo(flags: bigint): bigint {
    const ioctl = "NE_GET_IMAGE_LOAD_INFO";
    this.#checkInit(ioctl);
    if (flags !== EIF_IMAGE) {
      throw refusal(ioctl, NE_ERR.INVALID_FLAG_VALUE, `image type ${flags} is unknown, 1 (EIF) is`);
    }
    return BigInt(EIF_LOAD_OFFSET);
  }

  /** NE_SET_USER_MEMORY_REGION. */
  setMemoryRegion(region: UserMemoryRegion, caller: number): void {
    const ioctl = "NE_SET_USER_MEMORY_REGION";
    if (region.flags !== 0n) {
      throw refusal(ioctl, NE_ERR.INVALID_FLAG_VALUE, `flags are ${region.flags}, expected 0`);
    }
    this.#checkInit(ioctl);
    this.#checkOwner(ioctl, caller);
    this.#checkRegion(ioctl, region);
    if (region.size === 0n) throw refusal(ioctl, constants.errno.ENOMEM, "the region has no page");
    const pieces = this.#options.checkPages(region, this.#owner);
    const { maxMemoryRegions } = this.#options;
    if (this.#regionCount + pieces > maxMemoryRegions) {
      const total = this.#regionCount + pieces;
      throw refusal(
        ioctl,
        NE_ERR.MEM_MAX_REGIONS,
        `${total} memory regions, at most ${maxMemoryRegions} fit`,
      );
    }
    this.#regionCount += pieces;
    this.regions.push(region);
  }

  #checkRegion(ioctl: string, { size, address }: UserMemoryRegion): void {
    if (size % REGION_UNIT !== 0n) {
      throw refusal(ioctl, NE_ERR.INVALID_MEM_REGION_SIZE, `size ${size} is not a multiple of 2 MiB`);
    }
    const hex = `0x${address.toString(16)}`;
    if (address % REGION_UNIT !== 0n) {
      throw refusal(ioctl, NE_ERR.UNALIGNED_MEM_REGION_ADDR, `address ${hex} is not aligned to 2 MiB`);
    }
    if (address + size > USER_ADDRESS_END) {
      throw refusal(ioctl, NE_ERR.INVALID_MEM_REGION_ADDR, `${hex} + ${size} is no user memory`);
    }
    for (const used of this.regions) {
      if (used.address < address + size && address < used.address + used.size) {
        throw refusal(ioctl, NE_ERR.MEM_REGION_ALREADY_USED, `${hex} + ${size} overlaps a region set before`);
      }
    }
  }

  /** NE_ADD_VCPU: 0 takes the next CPU of the pool. Returns the CPU's id. */
  addVcpu(id: number, caller: number): number {
    const ioctl = "NE_ADD_VCPU";
    this.#checkInit(ioctl);
    const chosen = this.#cpus.choose(id, (errno, message) => refusal(ioctl, errno, message));
    this.#checkOwner(ioctl, caller);
    this.#cpus.add(chosen);
    return chosen;
  }

  /** NE_START_ENCLAVE up to where the hypervisor takes over; `started` follows, then `startFailed` where it refuses. */
  checkStart({ flags, cid }: { flags: bigint; cid: bigint }): void {
    const ioctl = "NE_START_ENCLAVE";
    if (flags >= START_FLAGS_END) {
      throw refusal(ioctl, NE_ERR.INVALID_FLAG_VALUE, `flags are ${flags}, expected 0 or 1 (debug mode)`);
    }
    if (isReserved(cid)) {
      throw refusal(ioctl, NE_ERR.INVALID_ENCLAVE_CID, `CID ${cid} is reserved or longer than 32 bits`);
    }
    this.#checkInit(ioctl);
    if (this.#regionCount === 0) throw refusal(ioctl, NE_ERR.NO_MEM_REGIONS_ADDED, "no memory was added");
    const size = this.memorySize;
    if (size < BigInt(ENCLAVE_MEMORY_MIN)) {
      throw refusal(
        ioctl,
        NE_ERR.ENCLAVE_MEM_MIN_SIZE,
        `${size} bytes of memory, at least 64 MiB are needed`,
      );
    }
    if (this.#cpus.ids.length === 0) throw refusal(ioctl, NE_ERR.NO_VCPUS_ADDED, "no vCPU was added");
    const missing = this.#cpus.missingSiblings();
    if (missing.length > 0) {
      const text = `CPU ${missing.join(", ")} of a core that the enclave uses was not added`;
      throw refusal(ioctl, NE_ERR.FULL_CORES_NOT_USED, text);
    }
  }

  started(): void {
    this.#state = "running";
  }

  startFailed(): void {
    this.#state = "init";
  }

  /** The device's event: the enclave is gone. Its resources stay taken until the descriptor is closed. */
  stopped(): void {
    this.#state = "stopped";
  }

  /** close(2) of the last reference: cores go back to the pool. Idempotent. */
  release(): void {
    this.#state = "stopped";
    this.#cpus.release();
  }

  #checkInit(ioctl: string): void {
    if (this.#state !== "init") {
      throw refusal(ioctl, NE_ERR.NOT_IN_INIT_STATE, `the enclave is ${this.#state}: it was started before`);
    }
  }

  #checkOwner(ioctl: string, caller: number): void {
    if (caller !== this.#owner) {
      throw refusal(ioctl, constants.errno.EIO, "another process than the one that created the enclave");
    }
  }
}

/** Any CID but 0 ("choose one") that the driver keeps from enclaves. */
function isReserved(cid: bigint): boolean {
  return (cid > 0n && cid <= BigInt(CID_HOST)) || cid >= BigInt(CID_ANY) || cid === BigInt(CID_PARENT);
}

function refusal(ioctl: string, errno: number, message: string): NitroError {
  return new NitroError(ioctl, errno, `${ioctl}: ${message}`);
}
