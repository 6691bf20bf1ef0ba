/** The app in an enclave of the emulator: replaced in the running one where that is possible, else in a new one. */
import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { createEmulatedDevice, type EmulatedDevice, type EmulatedDeviceOptions } from "../emulator/device.ts";
import type { DevelopmentReport } from "../format/development.ts";
import type { CloisterError } from "../format/errors.ts";
import type { VsockStream } from "../launcher/device.ts";
import type { LocalEgress } from "../launcher/egress.ts";
import type { Enclave } from "../launcher/enclave.ts";
import type { ExitReport } from "../launcher/event.ts";
import { launch } from "../launcher/launch.ts";
import { buildDevelopment } from "../packer/development.ts";
import type { AppEnd, Backend, BackendEvents, Build, Outcome } from "./backend.ts";
import { Channel, connectChannel } from "./channel.ts";
import { difference, type Signature, signatureOf } from "./signature.ts";

export interface MachineOptions extends BackendEvents {
  /** Absolute path of the image. */
  readonly output: string;
  readonly cacheDirectory?: string;
  readonly emulator?: EmulatedDeviceOptions;
  readonly local?: readonly LocalEgress[];
}

interface Running {
  readonly enclave: Enclave;
  readonly signature: Signature;
  readonly channel: Channel;
}

interface Pending {
  readonly generation: number;
  readonly resolve: (outcome: Outcome) => void;
  readonly reject: (error: unknown) => void;
}

/** What the app may take to end when the loop does. */
const STOP_DEADLINE_MS = 5_000;
/** What an ended enclave leaves to its app. */
const GONE = { kind: "ended", replaced: false } as const;

export class MachineBackend implements Backend {
  readonly #options: MachineOptions;
  readonly #device: EmulatedDevice;
  readonly #closed = new AbortController();
  #running: Running | undefined;
  /** It booted, and its channel is awaited. */
  #starting: Enclave | undefined;
  /** One start or stop at a time. */
  #turn: Promise<unknown> = Promise.resolve();
  #pending: Pending | undefined;
  #generation = 0;

  /** Throws E_QEMU_MISSING. */
  constructor(options: MachineOptions) {
    this.#options = options;
    this.#device = createEmulatedDevice(options.emulator);
  }

  run(build: Build, { fresh }: { readonly fresh: boolean }): Promise<Outcome> {
    // Whoever waits for the one before need not wait for this one's machine.
    this.#settle({ kind: "superseded" });
    const { promise, resolve, reject } = Promise.withResolvers<Outcome>();
    const generation = ++this.#generation;
    const pending = { generation, resolve, reject };
    this.#pending = pending;
    this.#turn = this.#turn
      .then(async () => {
        // A later build is waiting for its turn.
        if (this.#pending === pending) await this.#run(build, fresh, generation);
      })
      .catch(reject);
    return promise;
  }

  connect(port: number): Promise<VsockStream> {
    const enclave = this.#running?.enclave;
    if (enclave !== undefined) return enclave.connect(port);
    return Promise.reject(Object.assign(new Error("no enclave runs"), { code: "ECONNRESET" }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort();
    await this.#turn;
    const running = this.#running;
    this.#running = undefined;
    await running?.enclave.stop({ deadlineMs: STOP_DEADLINE_MS });
    this.#device.close();
  }

  async #run(build: Build, fresh: boolean, generation: number): Promise<void> {
    const signature = signatureOf(build);
    const reason = fresh ? "asked for" : this.#whyNew(signature);
    const running = this.#running;
    if (reason === undefined && running !== undefined) {
      running.channel.send(generation, build.bundle.files);
      return;
    }
    this.#options.onStart(reason ?? "");
    this.#running = undefined;
    await running?.enclave.terminate();
    await this.#start(build, signature, generation);
  }

  /** Undefined: the enclave that runs takes it. */
  #whyNew(signature: Signature): string | undefined {
    const running = this.#running;
    if (running === undefined) return "no enclave runs";
    if (!running.channel.isOpen) return "the one that runs takes no more builds";
    return difference(running.signature, signature);
  }

  async #start({ project, bundle }: Build, signature: Signature, generation: number): Promise<void> {
    const { output, cacheDirectory, onEvent, onMeasured, local = [] } = this.#options;
    mkdirSync(dirname(output), { recursive: true });
    const cache = cacheDirectory === undefined ? {} : { cacheDirectory };
    const image = await buildDevelopment({ project, bundle, output, ...cache });
    const { PCR0, PCR1, PCR2 } = image.measurements;
    onMeasured({ PCR0, PCR1, PCR2 });
    const { signal } = this.#closed;
    const options = { device: this.#device, name: project.name, egress: { local }, signal, onEvent };
    const enclave = await launch(image.eifPath, options);
    this.#starting = enclave;
    const gone = new AbortController();
    void enclave.exited.then((report) => {
      gone.abort();
      this.#lose(enclave, report);
    });
    try {
      const stream = await connectChannel((port) => enclave.connect(port), gone.signal);
      const channel = new Channel(stream, bundle.files, {
        // The image's own is 0.
        onReport: (report) => this.#hear({ ...report, generation: report.generation || generation }),
        onFault: (error) => this.#fail(enclave, error),
      });
      this.#starting = undefined;
      this.#running = { enclave, signature, channel };
    } catch (error) {
      // #lose has told how it ended.
      if (!gone.signal.aborted) throw error;
    }
  }

  #hear(report: DevelopmentReport): void {
    const { generation } = report;
    const isAwaited = this.#pending?.generation === generation;
    if (report.type === "serving") {
      if (isAwaited) this.#settle({ kind: "serving", ports: report.ports });
    } else if (isAwaited) {
      const { status, reason, replaced } = report;
      this.#settle({ kind: "ended", status, reason, replaced });
    } else if (generation === this.#generation) {
      this.#options.onEnded({ status: report.status, reason: report.reason });
    }
  }

  /** It is not talked to any more: the next build has a new enclave. */
  #fail(enclave: Enclave, error: CloisterError): void {
    if (enclave !== this.#running?.enclave) return;
    if (this.#pending === undefined) this.#options.onEvent({ type: "fault", reason: error.message });
    this.#pending?.reject(error);
    this.#pending = undefined;
  }

  /** The enclave is gone. */
  #lose(enclave: Enclave, report: ExitReport): void {
    // One that was replaced by a new one is nobody's loss.
    if (enclave !== this.#running?.enclave && enclave !== this.#starting) return;
    this.#running = undefined;
    this.#starting = undefined;
    if (this.#pending === undefined) this.#options.onEnded(endOf(report));
    this.#settle({ ...GONE, ...endOf(report) });
  }

  #settle(outcome: Outcome): void {
    this.#pending?.resolve(outcome);
    this.#pending = undefined;
  }
}

function endOf(report: ExitReport): AppEnd {
  if (report.kind === "app") return { status: report.status, reason: report.reason };
  return {
    status: 1,
    reason: report.kind === "crash" ? "the enclave crashed" : "the enclave was terminated",
  };
}
