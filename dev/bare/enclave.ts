/** A running bare enclave: what launcher/enclave.ts is for one that runs in a machine. */
import type { EnclaveMessage } from "../../format/control.ts";
import { levelOfSource } from "../../format/log.ts";
import type { Measurements } from "../../format/measurement.ts";
import type { LogRecord } from "../../init/records.ts";
import type { VsockStream } from "../../launcher/device.ts";
import { notReady } from "../../launcher/enclave.ts";
import type { EnclaveEvent, ExitReport } from "../../launcher/event.ts";
import { type LogEvent, LogStream } from "../../launcher/logs.ts";
import type { Published } from "../../launcher/publish.ts";
import { BareProcess, type BareProcessOptions } from "./process.ts";
import type { BarePublisher } from "./publish.ts";
import type { BareParentVsock } from "./vsock.ts";

const STOP_DEADLINE_MS = 10_000;

/** What startBare() hands over; the enclave releases all of it at its end. */
export interface BareParts {
  readonly name: string;
  /** What its documents attest. */
  readonly measurements: Measurements;
  readonly attestationRoot: () => Promise<Uint8Array>;
  readonly process: Pick<BareProcessOptions, "standby" | "inspect" | "redact">;
  readonly vsock: BareParentVsock;
  readonly publishers: readonly BarePublisher[];
  readonly emit: (event: EnclaveEvent) => void;
  /** Since startBare() was called. */
  readonly elapsedMs: () => number;
  readonly release: () => Promise<void>;
}

export class BareEnclave implements AsyncDisposable {
  readonly name: string;
  readonly published: readonly Published[];
  readonly measurements: Measurements;
  /** The app serves, and published ports are relayed. Rejects with E_APP_ENDED or E_ENCLAVE_CRASHED when it ends before. */
  readonly ready: Promise<void>;
  /** How it ended. Never rejects. */
  readonly exited: Promise<ExitReport>;
  readonly #parts: BareParts;
  readonly #process: BareProcess;
  readonly #ready = Promise.withResolvers<void>();
  readonly #logs = new Set<LogStream>();

  constructor(parts: BareParts) {
    this.name = parts.name;
    this.published = parts.publishers.map(({ address, port, vsockPort }) => ({ address, port, vsockPort }));
    this.measurements = parts.measurements;
    this.#parts = parts;
    this.ready = this.#ready.promise;
    // Who does not ask whether it is ready hears of its end by `exited`.
    this.ready.catch(() => {});
    this.#process = new BareProcess({
      ...parts.process,
      onLog: (record) => this.#log(record),
      onMessage: (message) => this.#receive(message),
      onFault: (reason) => parts.emit({ type: "fault", reason }),
    });
    this.exited = this.#process.exited.then((report) => this.#end(report));
  }

  /** Undefined where the process could not be started. */
  get pid(): number | undefined {
    return this.#process.pid;
  }

  /** The certificate, DER, under which its documents verify. Rejects with E_DEVELOPMENT_ROOT. */
  attestationRoot(): Promise<Uint8Array> {
    return this.#parts.attestationRoot();
  }

  /** Connect to a vsock port of the enclave. Rejects ECONNRESET (nothing listens) or ETIMEDOUT. */
  connect(port: number, options?: { readonly timeoutMs?: number }): Promise<VsockStream> {
    return this.#parts.vsock.connect(port, options);
  }

  /** Log records from now on until it ends. A slow reader loses the newest, which `dropped` of the next one counts. */
  logs(): AsyncIterable<LogEvent> {
    const stream = new LogStream();
    this.#logs.add(stream);
    stream.once("close", () => this.#logs.delete(stream));
    return stream;
  }

  /** Ask the app to stop: it sees SIGTERM. After `deadlineMs` (default 10 s) it is killed. Resolves as `exited`. */
  stop({ deadlineMs = STOP_DEADLINE_MS }: { readonly deadlineMs?: number } = {}): Promise<ExitReport> {
    this.#process.stop(deadlineMs);
    return this.exited;
  }

  /** End it now, as a power cut. Resolves as `exited`. */
  terminate(): Promise<ExitReport> {
    this.#process.terminate();
    return this.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.terminate();
  }

  #log(record: LogRecord): void {
    const { source, level = levelOfSource(source), dropped = 0 } = record;
    const event = { ...record, level, dropped };
    for (const stream of this.#logs) stream.add(event);
    this.#parts.emit(event);
  }

  #receive(message: EnclaveMessage): void {
    const { emit, elapsedMs, publishers } = this.#parts;
    if (message.type === "phase") emit({ ...message, elapsedMs: elapsedMs() });
    if (message.type !== "ready") return;
    for (const publisher of publishers) publisher.start((port) => this.connect(port));
    emit({ type: "ready", ports: message.ports, elapsedMs: elapsedMs() });
    this.#ready.resolve();
  }

  async #end(report: ExitReport): Promise<ExitReport> {
    await this.#parts.release();
    this.#ready.reject(notReady(this.name, report));
    for (const stream of this.#logs) stream.finish();
    this.#parts.emit({ type: "exit", report });
    return report;
  }
}
