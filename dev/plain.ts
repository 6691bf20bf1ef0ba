/** The app in a plain process (bare/), a new one for every build. */

import { toHex } from "../format/struct.ts";
import type { VsockStream } from "../launcher/device.ts";
import type { LocalEgress } from "../launcher/egress.ts";
import type { Backend, BackendEvents, Build, Outcome } from "./backend.ts";
import { type BareEnclave, startBare } from "./bare/index.ts";

/** What an app that is replaced may take to end its work. */
const STOP_DEADLINE_MS = 5_000;

export interface PlainOptions extends BackendEvents {
  readonly local?: readonly LocalEgress[];
  /** HOST:PORT of Node's inspector. */
  readonly inspect?: string;
}

export class PlainBackend implements Backend {
  readonly #options: PlainOptions;
  #serving: BareEnclave | undefined;
  #loading: BareEnclave | undefined;
  #run = 0;

  constructor(options: PlainOptions) {
    this.#options = options;
  }

  async run({ project, bundle }: Build): Promise<Outcome> {
    const run = ++this.#run;
    const { local = [], inspect, onEvent, onMeasured } = this.#options;
    await this.#loading?.terminate();
    // The inspector's port is the process's that serves.
    if (inspect !== undefined) await this.#retire();
    if (run !== this.#run) return { kind: "superseded" };
    const enclave = await startBare({
      ...{ project, bundle, publish: [], egress: { local }, onEvent },
      ...(inspect !== undefined && { inspect }),
    });
    if (run !== this.#run) {
      await enclave.terminate();
      return { kind: "superseded" };
    }
    this.#loading = enclave;
    const { pcr0, pcr1, pcr2 } = enclave.measurements;
    onMeasured({ PCR0: toHex(pcr0), PCR1: toHex(pcr1), PCR2: toHex(pcr2) });
    return await this.#settle(enclave, run);
  }

  async #settle(enclave: BareEnclave, run: number): Promise<Outcome> {
    const isReady = await enclave.ready.then(
      () => true,
      () => false,
    );
    if (this.#loading === enclave) this.#loading = undefined;
    if (!isReady) {
      if (run !== this.#run) return { kind: "superseded" };
      return { kind: "ended", ...(await endOf(enclave)), replaced: this.#serving !== undefined };
    }
    void this.#retire();
    this.#serving = enclave;
    void enclave.exited.then(async () => {
      if (this.#serving !== enclave) return;
      this.#serving = undefined;
      this.#options.onEnded(await endOf(enclave));
    });
    return { kind: "serving", ports: [] };
  }

  async #retire(): Promise<void> {
    const before = this.#serving;
    this.#serving = undefined;
    await before?.stop({ deadlineMs: STOP_DEADLINE_MS });
  }

  connect(port: number): Promise<VsockStream> {
    if (this.#serving !== undefined) return this.#serving.connect(port);
    return Promise.reject(Object.assign(new Error("no app runs"), { code: "ECONNRESET" }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#run++;
    await Promise.all([this.#loading?.terminate(), this.#retire()]);
  }
}

async function endOf(enclave: BareEnclave): Promise<{ status: number; reason: string }> {
  const report = await enclave.exited;
  if (report.kind === "app") return { status: report.status, reason: report.reason };
  return { status: 1, reason: report.kind };
}
