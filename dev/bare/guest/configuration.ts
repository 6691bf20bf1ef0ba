/** The measured configuration of a bare enclave. */
import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { decodeEnclaveJson, ENCLAVE_JSON, type EnclaveJson } from "../../../format/enclave.ts";
import { appDirectory } from "../folder.ts";

export function readConfiguration(folder: string): EnclaveJson {
  return decodeEnclaveJson(readFileSync(join(appDirectory(folder), basename(ENCLAVE_JSON))));
}
