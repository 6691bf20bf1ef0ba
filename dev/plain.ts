/** The app in a plain process (bare/), a new one for every build. */

import { toHex } from "../format/struct.ts";
import type { VsockStream } from "../launcher/device.ts";
import type { LocalEgress } from "../launcher/egress.ts";
import type { Backend, BackendEvents, Build, Outcome } from "./backend.ts";
import { type BareEnclave, type Standby, startBare, startStandby } from "./bare/index.ts";

/** What an app that is replaced may take to end its work. */
const STOP_DEADLINE_MS = 5_000;

export interface PlainOptions extends BackendEvents {
  readonly local?: readonly LocalEgress[];
  /** HOST:PORT of Node's inspector. */
  readonly inspect?: string;
  /** Starts the process that the next build is run in. Default: `startStandby`. */
  readonly prepare?: () => Promise<Standby>;
}

export class PlainBackend implements Backend {
  readonly #options: PlainOptions;
  #serving: BareEnclave | undefined;
  #loading: BareEnclave | undefined;
  /** Waits for the next build. */
  #standby: Promise<Standby | undefined>;
  #run = 0;

  constructor(options: PlainOptions) {
    this.#options = options;
    this.#standby = this.#prepare();
  }

  async run(build: Build): Promise<Outcome> {
    const run = ++this.#run;
    await this.#loading?.terminate();
    // The inspector's port is the process's that serves.
    if (this.#options.inspect !== undefined) await this.#retire();
    if (run !== this.#run) return { kind: "superseded" };
    try {
      return await this.#start(build, run);
    } finally {
      // While it loads, another Node that starts would only slow it down.
      if (run === this.#run) this.#standby = this.#prepare();
    }
  }

  async #start({ project, bundle }: Build, run: number): Promise<Outcome> {
    const { local = [], inspect, onEvent, onMeasured } = this.#options;
    const standby = await this.#take();
    const enclave = await startBare({
      ...{ project, bundle, publish: [], egress: { local }, onEvent },
      ...(inspect !== undefined && { inspect }),
      ...(standby !== undefined && { standby }),
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

  /** Never rejects: what is wrong is told by the start that goes without. */
  async #prepare(): Promise<Standby | undefined> {
    const { prepare = startStandby } = this.#options;
    try {
      return await prepare();
    } catch {
      return undefined;
    }
  }

  /** Undefined where there is none, or none that lives. */
  async #take(): Promise<Standby | undefined> {
    const taken = this.#standby;
    this.#standby = Promise.resolve(undefined);
    const standby = await taken;
    if (standby?.isAlive === true) return standby;
    standby?.[Symbol.dispose]();
    return undefined;
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
    const standby = await this.#take();
    standby?.[Symbol.dispose]();
    await Promise.all([this.#loading?.terminate(), this.#retire()]);
  }
}

async function endOf(enclave: BareEnclave): Promise<{ status: number; reason: string }> {
  const report = await enclave.exited;
  if (report.kind === "app") return { status: report.status, reason: report.reason };
  return { status: 1, reason: report.kind };
}
