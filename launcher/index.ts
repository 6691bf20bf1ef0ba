/** `cloister/launcher`: run and watch enclaves on the parent. */

export { type EgressCarrier, openEgress } from "./carrier.ts";
export { awaitEnd, describeEnclave, stopEnclave, terminateEnclave } from "./client.ts";
export {
  type MemoryRegion,
  NE_ERR,
  type NitroDevice,
  NitroError,
  type NitroVm,
  type ParentVsock,
  type VsockStream,
} from "./device.ts";
export { openRunDirectory } from "./directory.ts";
export { checkParent, type ParentOptions } from "./doctor.ts";
export type { EgressOptions, LocalEgress } from "./egress.ts";
export { Enclave } from "./enclave.ts";
export type { EnclaveEvent, ExitReport, LaunchStage } from "./event.ts";
export type { Finding } from "./finding.ts";
export { heartbeatLimitMs } from "./heartbeat.ts";
export { type LaunchOptions, launch } from "./launch.ts";
export type { Place } from "./listener.ts";
export type { LogEvent } from "./logs.ts";
export { openNitroDevice, parentVsock } from "./nitro.ts";
export type { Publish, Published } from "./publish.ts";
export type { EnclaveEnd, EnclaveRecord } from "./record.ts";
export { type Entry, Registry } from "./registry.ts";
export type { RestartPolicy } from "./restart.ts";
export { Supervisor, type SupervisorEvent, type SupervisorOptions } from "./supervisor.ts";
