/** What runs the app for the loop: an enclave of the emulator, or a plain process in its place. */
import type { EnclaveEvent, ExitReport } from "../launcher/event.ts";
import type { Bundle } from "../packer/bundle.ts";
import type { Project } from "../packer/project.ts";

/** One build of the app. */
export interface Build {
  readonly project: Project;
  readonly bundle: Bundle;
}

/** Something that runs one build, and may take the next one without a restart. */
export interface Backend extends AsyncDisposable {
  /** Settles when it ended, by itself or not. Never rejects. */
  readonly exited: Promise<ExitReport>;
  /** End it, the app asked first. Idempotent. */
  stop(): Promise<void>;
}

export type OnEvent = (event: EnclaveEvent) => void;
