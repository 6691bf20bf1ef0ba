/** The ioctls of /dev/nitro_enclaves, made by other processes. */
import { constants } from "node:os";
import { NitroError } from "../../launcher/device.ts";
import { closeDescriptor, makePipe, O_CLOEXEC } from "../../linux/descriptor.ts";
import {
  NE_IMAGE_LOAD_INFO,
  NE_IOCTL,
  NE_START_INFO,
  NE_USER_MEMORY_REGION,
  type NeIoctl,
} from "../../linux/enclaves.ts";
import { type Watcher, watchFailure } from "../../linux/event.ts";
import { descriptorsOf, identify } from "../../linux/peer.ts";
import type { Driver, Slot } from "../driver.ts";
import { EmulatedVm, type Host } from "../vm.ts";
import type { Call } from "./call.ts";
import { peerReader } from "./memory.ts";

const { ENOTTY } = constants.errno;

const names = new Map<number, NeIoctl>(
  Object.entries(NE_IOCTL).map(([name, number]) => [number, name as NeIoctl]),
);

/** An enclave slot and its descriptor in the command: the read end of a pipe, which polls POLLHUP and nothing else. */
interface Held {
  readonly slot: Slot;
  readonly vm: EmulatedVm;
  readonly owner: number;
  readonly identity: string;
  /** A start that the caller has not heard of yet: a signal may take it out of the call, and it asks again. */
  starting: Promise<number> | undefined;
}

export interface SlotsOptions {
  readonly host: Host;
  readonly driver: Driver;
  /** Errors to answer with, whatever the driver says. */
  readonly faults: ReadonlyMap<NeIoctl, number>;
  readonly isDevice: (identity: string) => boolean;
  /** Hears of every refusal. */
  readonly onRefusal: (error: NitroError) => void;
}

export class Slots {
  readonly #options: SlotsOptions;
  readonly #held = new Map<string, Held>();

  constructor(options: SlotsOptions) {
    this.#options = options;
  }

  /** An ioctl with one of the driver's numbers. */
  async ioctl(call: Call): Promise<void> {
    const identity = call.identify(0);
    const name = names.get(call.uint(1));
    const isDevice = identity !== undefined && this.#options.isDevice(identity);
    const held = identity === undefined ? undefined : this.#held.get(identity);
    if (name === undefined || (!isDevice && held === undefined)) call.proceed();
    else if (isDevice !== (name === "NE_CREATE_VM")) call.fail(ENOTTY);
    else await this.#answer(call, name, held);
  }

  async #answer(call: Call, name: NeIoctl, held: Held | undefined): Promise<void> {
    try {
      const fault = this.#options.faults.get(name);
      if (fault !== undefined) throw new NitroError(name, fault, `${name}: error ${fault}, as asked for`);
      if (held === undefined) this.#createVm(call);
      else await this.#perform(call, name, held);
    } catch (error) {
      if (error instanceof NitroError) this.#options.onRefusal(error);
      call.failWith(error);
    }
  }

  async #perform(call: Call, name: NeIoctl, held: Held): Promise<void> {
    switch (name) {
      case "NE_CREATE_VM":
        call.fail(ENOTTY);
        break;
      case "NE_GET_IMAGE_LOAD_INFO":
        getImageLoadInfo(call, held);
        break;
      case "NE_SET_USER_MEMORY_REGION":
        setMemoryRegion(call, held);
        break;
      case "NE_ADD_VCPU":
        addVcpu(call, held);
        break;
      case "NE_START_ENCLAVE":
        await start(call, held);
    }
  }

  #createVm(call: Call): void {
    this.#freeEnded();
    const { host, driver } = this.#options;
    const owner = call.pid;
    const slot = driver.createSlot(owner);
    const vm = new EmulatedVm(host, slot, (offset) => peerReader(owner, slot.regions, offset));
    const { readEnd, writeEnd } = makePipe();
    const identity = identify("self", readEnd);
    try {
      call.write(call.word(2), new Uint8Array(new BigUint64Array([slot.uid]).buffer));
      if (!call.give(readEnd, O_CLOEXEC)) throw new NitroError("NE_CREATE_VM", constants.errno.EINTR, "gone");
    } catch (error) {
      closeDescriptor(writeEnd);
      vm.close();
      throw error;
    } finally {
      closeDescriptor(readEnd);
    }
    const held = { slot, vm, owner, identity, starting: undefined };
    this.#held.set(identity, held);
    this.#watch(held, writeEnd);
  }

  /** Both ways: the command closes its last copy, which ends the enclave; the enclave ends, which hangs the command's up. */
  #watch({ vm, identity }: Held, writeEnd: number): void {
    let isClosed = false;
    const watcher: Watcher = watchFailure(writeEnd, () => {
      isClosed = true;
      vm.close();
      this.#held.delete(identity);
    });
    void vm.hangup.then(() => {
      if (!isClosed) watcher.close();
      closeDescriptor(writeEnd);
    });
  }

  /**
   * An enclave that ended keeps its cores until its descriptor is closed. Without a write end nothing tells of that, so
   * it is looked up when the next slot is wanted.
   */
  #freeEnded(): void {
    for (const { slot, vm, owner, identity } of this.#held.values()) {
      if (!slot.isStopped || descriptorsOf(owner).includes(identity)) continue;
      vm.close();
      this.#held.delete(identity);
    }
  }

  /** End every enclave. */
  close(): Promise<unknown> {
    const all = [...this.#held.values()];
    for (const { vm } of all) vm.close();
    return Promise.all(all.map(({ vm }) => vm.hangup));
  }
}

function getImageLoadInfo(call: Call, { slot }: Held): void {
  const address = call.word(2);
  const info = readStruct(call, address, NE_IMAGE_LOAD_INFO.size);
  const offset = slot.imageLoadInfo(info.getBigUint64(NE_IMAGE_LOAD_INFO.flags, true));
  info.setBigUint64(NE_IMAGE_LOAD_INFO.memoryOffset, offset, true);
  call.write(address, new Uint8Array(info.buffer));
  call.succeed();
}

function setMemoryRegion(call: Call, { slot }: Held): void {
  const struct = readStruct(call, call.word(2), NE_USER_MEMORY_REGION.size);
  const region = {
    flags: struct.getBigUint64(NE_USER_MEMORY_REGION.flags, true),
    size: struct.getBigUint64(NE_USER_MEMORY_REGION.memorySize, true),
    address: struct.getBigUint64(NE_USER_MEMORY_REGION.userspaceAddress, true),
  };
  slot.setMemoryRegion(region, call.pid);
  call.succeed();
}

function addVcpu(call: Call, { slot }: Held): void {
  const address = call.word(2);
  const struct = readStruct(call, address, 4);
  struct.setUint32(0, slot.addVcpu(struct.getUint32(0, true), call.pid), true);
  call.write(address, new Uint8Array(struct.buffer));
  call.succeed();
}

async function start(call: Call, held: Held): Promise<void> {
  const address = call.word(2);
  const info = readStruct(call, address, NE_START_INFO.size);
  const flags = Number(info.getBigUint64(NE_START_INFO.flags, true));
  const cid = Number(info.getBigUint64(NE_START_INFO.enclaveCid, true));
  held.starting ??= held.vm.start({ flags, cid });
  const starting = held.starting;
  const outcome = await starting.then(
    (chosen) => ({ cid: chosen }),
    (error: unknown) => ({ error }),
  );
  // The call may have come again meanwhile, and been answered.
  if (!call.isWaiting) return;
  held.starting = undefined;
  if ("error" in outcome) throw outcome.error;
  info.setBigUint64(NE_START_INFO.enclaveCid, BigInt(outcome.cid), true);
  call.write(address, new Uint8Array(info.buffer));
  call.succeed();
}

/** Throws SystemError EFAULT. */
function readStruct(call: Call, address: bigint, size: number): DataView {
  return new DataView(call.read(address, size).buffer);
}
