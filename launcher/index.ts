/** `cloister/launcher`: run and watch enclaves on the parent. */

export { type EgressCarrier, openEgress } from "./carrier.ts";
export {
  type MemoryRegion,
  NE_ERR,
  type NitroDevice,
  NitroError,
  type NitroVm,
  type ParentVsock,
  type VsockStream,
} from "./device.ts";
export type { EgressOptions, LocalEgress } from "./egress.ts";
export { Enclave } from "./enclave.ts";
export type { EnclaveEvent, ExitReport, LaunchStage } from "./event.ts";
export { heartbeatLimitMs } from "./heartbeat.ts";
export { type LaunchOptions, launch } from "./launch.ts";
export { openNitroDevice, parentVsock } from "./nitro.ts";
export type { Publish, Published } from "./publish.ts";
