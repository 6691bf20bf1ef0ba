/** One emulated enclave: the slot's rules, then the image, the vsock device and the QEMU that make it run. */
import { constants } from "node:os";
import type { Measurements } from "../format/measurement.ts";
import type { ByteReader } from "../format/reader.ts";
import {
  type MemoryRegion,
  NE_ENCLAVE_DEBUG_MODE,
  NE_ERR,
  NitroError,
  type NitroVm,
} from "../launcher/device.ts";
import type { Slot } from "./driver.ts";
import { type BootImage, loadImage } from "./hypervisor.ts";
import { type Machine, startMachine } from "./machine.ts";
import { type RegionAllocator, regionsReader } from "./memory.ts";
import { bootRegisters, type NsmOptions, type ParentIdentity } from "./nsm/boot.ts";
import { NsmModule } from "./nsm/module.ts";
import type { Registers } from "./nsm/registers.ts";
import { serveNsm } from "./nsm/service.ts";
import type { SigningAuthority } from "./nsm/signer.ts";
import type { EmulatedParentVsock } from "./parent.ts";
import { type Accelerator, type MachineKind, qemuArguments } from "./qemu.ts";
import { VsockDevice } from "./vsock/device.ts";

/** What the enclaves of one emulated device share. */
export interface Host {
  readonly program: string;
  readonly machine: MachineKind;
  readonly accelerator: Accelerator;
  readonly firmware: readonly string[];
  readonly onCommand: ((argv: readonly string[]) => void) | undefined;
  readonly allocator: RegionAllocator;
  readonly vsock: EmulatedParentVsock;
  readonly parent: ParentIdentity;
  readonly authority: SigningAuthority;
  readonly nsm: Pick<NsmOptions, "now" | "pause">;
}

/** Errno of a closed descriptor. */
const { EBADF, EINVAL } = constants.errno;

export class EmulatedVm implements NitroVm {
  readonly hangup: Promise<void>;
  readonly #hangUp: () => void;
  readonly #host: Host;
  readonly #slot: Slot;
  readonly #regions: MemoryRegion[] = [];
  readonly #readMemory: (start: number) => ByteReader;
  /** Undone in reverse order when the enclave ends or does not start. */
  readonly #cleanups: (() => void)[] = [];
  #machine: Machine | undefined;
  #measurements: Promise<Measurements | undefined> | undefined;
  #closed = false;

  /** `readMemory`: the slot's memory from an offset on, where it is another process's. */
  constructor(host: Host, slot: Slot, readMemory?: (start: number) => ByteReader) {
    this.#host = host;
    this.#slot = slot;
    this.#readMemory = readMemory ?? ((start) => regionsReader(this.#regions, start));
    const { promise, resolve } = Promise.withResolvers<void>();
    this.hangup = promise;
    this.#hangUp = resolve;
  }

  get slotUid(): bigint {
    return this.#slot.uid;
  }

  /** Of the QEMU process, once it was started. */
  get pid(): number | undefined {
    return this.#machine?.pid;
  }

  /** PCR0 to PCR2 as measured from enclave memory, after `start`; undefined when the enclave ended too early. */
  get measurements(): Promise<Measurements | undefined> | undefined {
    return this.#measurements;
  }

  readonly consoleTail = () => this.#machine?.console.tail() ?? "";

  imageLoadOffset(): number {
    return Number(this.#slot.imageLoadInfo(1n));
  }

  setMemoryRegion(region: MemoryRegion): void {
    const { address, size } = region;
    this.#slot.setMemoryRegion({ flags: 0n, size: BigInt(size), address }, process.pid);
    this.#regions.push(region);
  }

  addVcpu(id: number): number {
    return this.#slot.addVcpu(id, process.pid);
  }

  async start({ flags, cid }: { flags: number; cid: number }): Promise<number> {
    this.#slot.checkStart({ flags: BigInt(flags), cid: BigInt(cid) });
    const chosen = this.#host.vsock.reserve(cid);
    if (chosen === undefined) {
      const message = `CID ${cid} belongs to another enclave`;
      throw startError(NE_ERR.INVALID_ENCLAVE_CID, message);
    }
    this.#cleanups.push(() => this.#host.vsock.release(chosen));
    const loadOffset = this.imageLoadOffset();
    this.#slot.started();
    try {
      await this.#boot(chosen, loadOffset, flags === NE_ENCLAVE_DEBUG_MODE);
    } catch (error) {
      this.#cleanUp();
      this.#slot.startFailed();
      throw startError(EINVAL, error instanceof Error ? error.message : String(error), error);
    }
    return chosen;
  }

  async #boot(cid: number, loadOffset: number, debug: boolean): Promise<void> {
    const image = await loadImage(this.#readMemory(loadOffset), this.#host.machine);
    this.#cleanups.push(() => image.close());
    this.#host.allocator.discard(this.#regions);
    const vsock = new VsockDevice({
      guestCid: cid,
      // The enclave runs on without vsock; its console is where one looks for the reason.
      onFault: ({ message }) => this.#machine?.console.write(Buffer.from(`vsock: ${message}\n`)),
    });
    this.#cleanups.push(() => vsock.close());
    const machine = await this.#startMachine(image, vsock.qemuDescriptor, debug);
    this.#machine = machine;
    vsock.closeQemuDescriptor();
    // Before QEMU is past its firmware: no connection of the guest finds a port closed that is open.
    this.#measurements = image.measure();
    if (this.#host.machine === "microvm") this.#serveNsm(vsock, image, debug);
    this.#host.vsock.attach({ cid, vsock, ...(debug ? { console: machine.console } : {}) });
    void machine.exited.then(() => this.#end());
    if (this.#closed) {
      machine.kill();
      throw startError(EBADF, "the enclave was closed");
    }
  }

  /** QEMU's nitro-enclave machine has a module of its own. */
  #serveNsm(vsock: VsockDevice, image: BootImage, debug: boolean): void {
    const { parent, authority, nsm } = this.#host;
    const { now, pause } = nsm;
    const registers = this.#measureRegisters(image, debug);
    // Whoever asks the module hears of it; without a question it is no error.
    registers.catch(() => {});
    const { sign } = authority.signerFor(this.#moduleId, parent.instanceId);
    const onError = (error: unknown) => this.#machine?.console.write(Buffer.from(`nsm: ${error}\n`));
    serveNsm(vsock, new NsmModule({ moduleId: this.#moduleId, registers, sign, onError, now, pause }));
  }

  async #measureRegisters({ signature }: BootImage, debug: boolean): Promise<Registers> {
    const measurements = await this.#measurements;
    if (measurements === undefined) throw new Error("the enclave ended before it was measured");
    return bootRegisters({ ...this.#host.parent, debug, measurements, signature });
  }

  /** As on hardware: instance, then slot. */
  get #moduleId(): string {
    return `${this.#host.parent.instanceId}-enc${this.#slot.uid.toString(16)}`;
  }

  async #startMachine(image: BootImage, vsock: number, debug: boolean): Promise<Machine> {
    const { program, machine, accelerator, firmware, onCommand, parent } = this.#host;
    const args = qemuArguments({
      machine,
      accelerator,
      firmware,
      memory: Number(this.#slot.memorySize),
      cpus: this.#slot.cpuIds.length,
      cmdline: image.cmdline,
      debug,
      id: this.#moduleId,
      ...parent,
    });
    onCommand?.([program, ...args]);
    return startMachine({ program, args, vsock, kernel: image.kernel, initramfs: image.initramfs });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#machine !== undefined) this.#machine.kill();
    else this.#hangUp();
    this.#slot.release();
  }

  /** The machine is gone. */
  #end(): void {
    this.#cleanUp();
    this.#slot.stopped();
    this.#hangUp();
  }

  #cleanUp(): void {
    for (const undo of this.#cleanups.splice(0).reverse()) undo();
  }
}

function startError(errno: number, message: string, cause?: unknown): NitroError {
  return new NitroError("NE_START_ENCLAVE", errno, `NE_START_ENCLAVE: ${message}`, { cause });
}
