/**
 * The emulated /dev/nitro_enclaves of this process: the driver's rules in front, the hypervisor behind, one QEMU an
 * enclave. The launcher drives it as it drives real hardware.
 */
import type { NitroDevice } from "../launcher/device.ts";
import { CpuPool, type CpuPoolOptions } from "./cpus.ts";
import { Driver } from "./driver.ts";
import { RegionAllocator } from "./memory.ts";
import { type NsmOptions, parentIdentity } from "./nsm/boot.ts";
import { SigningAuthority } from "./nsm/signer.ts";
import { EmulatedParentVsock } from "./parent.ts";
import { detectAccelerator, findQemu, type QemuOptions } from "./qemu.ts";
import { EmulatedVm, type Host } from "./vm.ts";

export type { NsmOptions };

export interface EmulatedDeviceOptions extends QemuOptions {
  readonly nsm?: NsmOptions;
  /** The parent's cores and its CPU pool. Default: 64 cores of 2 threads, all but core 0 in the pool. */
  readonly cpus?: CpuPoolOptions;
  /** Memory regions that an enclave can have. Default: 1024. */
  readonly maxMemoryRegions?: number;
  /** Sees the whole QEMU command line before it is run. */
  readonly onCommand?: (argv: readonly string[]) => void;
}

export const DEFAULT_CPUS: CpuPoolOptions = {
  cores: 64,
  threadsPerCore: 2,
  pool: Array.from({ length: 63 }, (_, index) => index + 1),
};
export const DEFAULT_MAX_REGIONS = 1024;

export interface EmulatedDevice extends NitroDevice {
  createVm(): EmulatedVm;
  /**
   * The certificate, DER, under which documents of its enclaves verify: `roots: [await fingerprint(root)]`. Rejects with
   * E_DEVELOPMENT_ROOT. (Documents of QEMU's `nitro-enclave` machine are not signed.)
   */
  attestationRoot(): Promise<Uint8Array>;
}

/** What the enclaves of a device share. Throws E_QEMU_MISSING, or RangeError for options that make no sense. */
export function openHost(options: EmulatedDeviceOptions): Host {
  return {
    program: findQemu(options.program),
    machine: options.machine ?? "microvm",
    accelerator: options.accelerator ?? detectAccelerator(),
    firmware: options.firmware ?? [],
    onCommand: options.onCommand,
    allocator: new RegionAllocator(),
    vsock: new EmulatedParentVsock(),
    parent: parentIdentity(options.nsm ?? {}),
    authority: new SigningAuthority(options.nsm?.root, options.nsm?.now),
    nsm: options.nsm ?? {},
  };
}

/** Throws E_QEMU_MISSING, with the command that installs it. */
export function createEmulatedDevice(options: EmulatedDeviceOptions = {}): EmulatedDevice {
  const host = openHost(options);
  const { allocator, vsock, authority } = host;
  const vms = new Set<EmulatedVm>();
  const driver = new Driver({
    cpus: new CpuPool(options.cpus ?? DEFAULT_CPUS),
    maxMemoryRegions: options.maxMemoryRegions ?? DEFAULT_MAX_REGIONS,
    // Ordinary pages will do in one process: a region counts as one huge page.
    checkPages: () => 1,
  });
  const close = () => {
    for (const vm of vms) vm.close();
    allocator.close();
  };
  return {
    vsock,
    createVm() {
      const vm = new EmulatedVm(host, driver.createSlot(process.pid));
      vms.add(vm);
      vm.hangup.then(() => vms.delete(vm));
      return vm;
    },
    allocateMemory: (bytes) => allocator.allocate(bytes),
    freeMemory: (regions) => allocator.free(regions),
    attestationRoot: async () => (await authority.root()).certificate,
    close,
    [Symbol.dispose]: close,
  };
}
