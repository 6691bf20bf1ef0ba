/**
 * `/app/enclave.json`, the measured configuration: written by the packer, read by init. It lies in the app ramdisk
 * and so in PCR2; what the parent may decide at launch is not here.
 */
export interface EnclaveJson {
  readonly version: 1;
  readonly name: string;
  /** Entry module, relative to /app. */
  readonly entry: string;
  /** vsock ports of the app; the first is where a default-exported `{ fetch }` is served. */
  readonly ports: readonly number[];
  readonly env: Readonly<Record<string, string>>;
}

/** Where the app lies in the enclave, and its measured configuration. */
export const APP_DIRECTORY = "/app";
export const ENCLAVE_JSON = "/app/enclave.json";
/** Name under which init publishes the runtime to the app: `globalThis[Symbol.for(RUNTIME_SYMBOL)]`. */
export const RUNTIME_SYMBOL = "cloister.runtime";
