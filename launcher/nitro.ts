/** The ioctl device: real enclaves, through /dev/nitro_enclaves and this machine's AF_VSOCK. */
import { closeSync, constants, openSync } from "node:fs";
import { CloisterError } from "../format/errors.ts";
import * as ne from "../linux/enclaves.ts";
import { type Watcher, watchReadable } from "../linux/event.ts";
import { SystemError } from "../linux/ffi.ts";
import { connectVsock, listenVsock, openVsock } from "../linux/vsock.ts";
import {
  type MemoryRegion,
  NE_ERR,
  type NitroDevice,
  NitroError,
  type NitroVm,
  type ParentVsock,
  type VsockStream,
} from "./device.ts";
import { joinPort } from "./hub.ts";
import { HugePageAllocator } from "./memory.ts";
import { Starter } from "./starter.ts";

/**
 * Open the driver's device. Throws CloisterError: E_NO_DEVICE where there is none, E_DEVICE_ACCESS where this user may not,
 * E_DEVICE for whatever else open(2) says.
 */
export function openNitroDevice(path: string = ne.ENCLAVES_DEVICE): NitroDevice {
  const device = openDevice(path);
  const allocator = new HugePageAllocator();
  const vms = new Set<IoctlVm>();
  let isOpen = true;
  const close = () => {
    if (!isOpen) return;
    isOpen = false;
    for (const vm of vms) vm.close();
    closeSync(device);
    allocator.close();
  };
  return {
    vsock: parentVsock,
    createVm() {
      const vm = new IoctlVm(device);
      vms.add(vm);
      void vm.hangup.then(() => vms.delete(vm));
      return vm;
    },
    allocateMemory: (bytes) => allocator.allocate(bytes),
    freeMemory: (regions) => allocator.free(regions),
    close,
    [Symbol.dispose]: close,
  };
}

function openDevice(path: string): number {
  try {
    return openSync(path, constants.O_RDWR);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const message = `${path}: got ${code}, expected the driver's device`;
    switch (code) {
      case "ENOENT":
      // A device node that outlived the driver.
      case "ENXIO":
      case "ENODEV":
        throw new CloisterError("E_NO_DEVICE", message, { cause: error });
      case "EACCES":
      // A container without the device.
      case "EPERM":
        throw new CloisterError("E_DEVICE_ACCESS", message, { cause: error });
      default:
        throw new CloisterError("E_DEVICE", message, { cause: error });
    }
  }
}

/** An enclave slot and its descriptor. */
class IoctlVm implements NitroVm {
  readonly slotUid: bigint;
  readonly hangup: Promise<void>;
  readonly #hangUp: () => void;
  readonly #fd: number;
  readonly #starter = new Starter();
  readonly #watcher: Watcher;

  constructor(device: number) {
    const { fd, slotUid } = refusable("NE_CREATE_VM", () => ne.createVm(device));
    this.#fd = fd;
    this.slotUid = slotUid;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.hangup = promise;
    this.#hangUp = resolve;
    // The descriptor polls POLLHUP once the enclave is gone, and nothing before. It is no one's any more then.
    this.#watcher = watchReadable(fd, () => this.close());
  }

  imageLoadOffset(): number {
    return refusable("NE_GET_IMAGE_LOAD_INFO", () => ne.imageLoadOffset(this.#fd));
  }

  setMemoryRegion({ address, size }: MemoryRegion): void {
    refusable("NE_SET_USER_MEMORY_REGION", () => ne.setMemoryRegion(this.#fd, address, size));
  }

  addVcpu(id: number): number {
    return refusable("NE_ADD_VCPU", () => ne.addVcpu(this.#fd, id));
  }

  async start({ flags, cid }: { flags: number; cid: number }): Promise<number> {
    try {
      return await this.#starter.start({ fd: this.#fd, flags, cid });
    } catch (error) {
      throw refused("NE_START_ENCLAVE", error);
    }
  }

  close(): void {
    // While NE_START_ENCLAVE runs the kernel keeps the slot until it returns.
    this.#watcher.close();
    this.#starter.close();
    this.#hangUp();
  }
}

const driverNames = new Map<number, string>(
  Object.entries(NE_ERR).map(([name, errno]) => [errno, `NE_ERR_${name}`]),
);

function refusable<T>(ioctl: ne.NeIoctl, call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw refused(ioctl, error);
  }
}

function refused(ioctl: ne.NeIoctl, error: unknown): unknown {
  if (!(error instanceof SystemError)) return error;
  const got = driverNames.get(error.errno) ?? error.code;
  return new NitroError(ioctl, error.errno, `${ioctl}: got ${got}, expected success`);
}

/** nitro-cli has the heartbeat's port while it starts an enclave, which it gives 180 s; most take seconds. */
const PORT_PATIENCE_MS = 60_000;

/** AF_VSOCK of this machine, which is the parent. */
export const parentVsock: ParentVsock = {
  listen(port, onConnection) {
    try {
      return listenVsock({ port }, onConnection);
    } catch (error) {
      throw vsockError(error);
    }
  },
  async share(port, onConnection) {
    try {
      return await joinPort(port, onConnection, PORT_PATIENCE_MS);
    } catch (error) {
      throw vsockError(error);
    }
  },
  async connect(cid, port, options = {}): Promise<VsockStream> {
    try {
      return await connectVsock({ cid, port, ...options });
    } catch (error) {
      throw vsockError(error);
    }
  },
  async open(cid, port) {
    try {
      return await openVsock({ cid, port });
    } catch (error) {
      throw vsockError(error);
    }
  },
};

function vsockError(error: unknown): unknown {
  const { code } = error as { code?: string };
  // EAFNOSUPPORT: no vsock in this kernel. ENODEV: no transport for it.
  if (code !== "EAFNOSUPPORT" && code !== "ENODEV") return error;
  return new CloisterError("E_NO_VSOCK", `AF_VSOCK: got ${code}, expected a socket`, { cause: error });
}
