/** The measured configuration. */
import { readFileSync } from "node:fs";
import { ENCLAVE_JSON, type EnclaveJson } from "../format/enclave.ts";

/** The configuration; its writer is the packer, and the hypervisor measured it. */
export function readConfiguration(): EnclaveJson {
  const configuration = JSON.parse(readFileSync(ENCLAVE_JSON, "utf8")) as EnclaveJson;
  if (configuration.version === 1) return configuration;
  throw new Error(`${ENCLAVE_JSON}: version: got ${configuration.version}, expected 1`);
}
