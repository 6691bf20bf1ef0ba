/** `cloister/emulator`: enclaves on machines without /dev/nitro_enclaves, and enclaves for tests. */

export * from "../emulator/index.ts";
export { createEnclave, type EnclaveMode, type EnclaveOptions } from "./enclave.ts";
export type { Faults } from "./test/fault.ts";
export type { EgressMock, EgressMocks } from "./test/mock.ts";
export type { TestEnclave, TestMeasurements } from "./test/subject.ts";
