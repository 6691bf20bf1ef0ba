/** What each mode of a test's enclave is asked for, and what it gives. */
import type { Measurements } from "../../format/measurement.ts";
import type { VsockStream } from "../../launcher/device.ts";
import type { LocalEgress } from "../../launcher/egress.ts";
import type { EnclaveEvent, ExitReport } from "../../launcher/event.ts";
import type { Project } from "../../packer/project.ts";
import type { EnclaveOptions } from "../enclave.ts";
import type { Faults } from "./fault.ts";

export interface Start {
  readonly options: EnclaveOptions;
  /** Absent for an image. */
  readonly project: Project | undefined;
  /** A folder of this enclave's own. */
  readonly folder: string;
  readonly local: readonly LocalEgress[];
  readonly faults: Faults;
  /** Ends the start, or the enclave once it runs. */
  readonly signal: AbortSignal;
  readonly onEvent: (event: EnclaveEvent) => void;
}

export type StartMode = (start: Start) => Promise<Running>;

export interface Running {
  readonly name: string;
  readonly ready: Promise<void>;
  readonly exited: Promise<ExitReport>;
  /** As its documents have them. */
  readonly measurements: Measurements;
  /** DER. */
  readonly attestationRoot: Uint8Array;
  connect(port: number, options?: { readonly timeoutMs?: number }): Promise<VsockStream>;
  stop(options?: { readonly deadlineMs?: number }): Promise<ExitReport>;
  terminate(): Promise<ExitReport>;
  /** What the machine itself said last. */
  console(): string;
}
