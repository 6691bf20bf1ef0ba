/** What runs the app for the loop: an enclave of the emulator, or a plain process in its place. */

import type { VsockStream } from "../launcher/device.ts";
import type { EnclaveEvent } from "../launcher/event.ts";
import type { Bundle } from "../packer/bundle.ts";
import type { Project } from "../packer/project.ts";

/** One build of the app. */
export interface Build {
  readonly project: Project;
  readonly bundle: Bundle;
}

/** What became of a build that was run. */
export type Outcome =
  | { readonly kind: "serving"; readonly ports: readonly number[] }
  /** The app ended before it served. `replaced`: the one before serves on. */
  | (AppEnd & { readonly kind: "ended"; readonly replaced: boolean })
  /** A later one was run meanwhile. */
  | { readonly kind: "superseded" };

export interface AppEnd {
  /** 0 to 255. */
  readonly status: number;
  readonly reason: string;
}

export interface BackendEvents {
  /** Of the enclave: its boot, its log. */
  readonly onEvent: (event: EnclaveEvent) => void;
  /** A machine starts, because of this. */
  readonly onStart: (reason: string) => void;
  /** It has started: what it attests. */
  readonly onMeasured: (measurements: MeasuredRegisters) => void;
  /** The app that served ended by itself. */
  readonly onEnded: (end: AppEnd) => void;
}

/** 96 hexadecimal digits each. */
export interface MeasuredRegisters {
  readonly PCR0: string;
  readonly PCR1: string;
  readonly PCR2: string;
}

export interface Backend extends AsyncDisposable {
  /**
   * Run a build in place of the one before, which serves until this one can. `fresh`: in a machine that starts anew.
   * Rejects where no machine can be started.
   */
  run(build: Build, options: { readonly fresh: boolean }): Promise<Outcome>;
  /** Connect to a vsock port of the app. Rejects ECONNRESET where nothing listens. */
  connect(port: number): Promise<VsockStream>;
}
