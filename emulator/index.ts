/** `cloister/emulator`: a NitroDevice for machines without /dev/nitro_enclaves. */
export type { CpuPoolOptions } from "./cpus.ts";
export {
  createEmulatedDevice,
  type EmulatedDevice,
  type EmulatedDeviceOptions,
  type NsmOptions,
} from "./device.ts";
export { type DevelopmentRoot, developmentRootFolder, openDevelopmentRoot } from "./nsm/root.ts";
export { type Accelerator, detectAccelerator, findQemu, installCommand, type MachineKind } from "./qemu.ts";
export { EmulatedVm } from "./vm.ts";
