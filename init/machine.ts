/** What an app's surroundings are made of: the enclave's kernel, or what stands in for it. */
import type { EnclaveJson } from "../format/enclave.ts";
import type { Vsock } from "../runtime/vsock.ts";

export interface Machine {
  readonly vsock: Vsock;
  /** The outbound network, from here on. */
  readonly route: (configuration: EnclaveJson) => void;
  /** Where the app lies. */
  readonly directory: string;
  /** What the app finds in process.env besides its own. */
  readonly environment: Readonly<Record<string, string>>;
}
