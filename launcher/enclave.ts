/** A running enclave: its streams, its events, its end. */
import { setTimeout as sleep } from "node:timers/promises";
import { CID_HYPERVISOR, CONSOLE_PORT_BASE } from "../format/abi.ts";
import type { BootPhase, EnclaveMessage } from "../format/control.ts";
import { CloisterError } from "../format/errors.ts";
import { levelOfSource } from "../format/log.ts";
import { type ControlChannel, openControl } from "./control.ts";
import type { NitroVm, ParentVsock, VsockStream } from "./device.ts";
import type { EnclaveEvent, ExitReport } from "./event.ts";
import { type LogEvent, LogStream } from "./logs.ts";
import type { ParentPort } from "./port.ts";
import type { Published, Publisher } from "./publish.ts";
import type { Traffic } from "./traffic.ts";

/** How long an enclave may take to reboot after its exit report, milliseconds. */
const REBOOT_LIMIT_MS = 10_000;
const STOP_DEADLINE_MS = 10_000;
/** What the enclave may need to report after it killed the app at the deadline, milliseconds. */
const REPORT_LIMIT_MS = 5_000;
/** What an ended enclave said last may still be on its way, milliseconds. */
const DRAIN_LIMIT_MS = 1_000;

/** What its ports and its proxy carried so far. */
export interface EnclaveTraffic {
  readonly published: readonly (Published & Traffic)[];
  /** Undefined where this launch carries nothing outward. */
  readonly egress: Traffic | undefined;
}

export interface EnclaveDetails {
  /** As nitro-cli names it: instance id, `-enc`, slot in hexadecimal. */
  readonly id: string;
  readonly name: string;
  readonly cid: number;
  readonly memoryMiB: number;
  readonly cpuIds: readonly number[];
  readonly debug: boolean;
}

/** What launch() hands over; the enclave releases all of it at its end. */
export interface EnclaveParts {
  readonly vm: NitroVm;
  readonly vsock: ParentVsock;
  readonly control: ParentPort;
  /** The image has our init, which says on the control channel when the app is ready. */
  readonly saysReady: boolean;
  readonly publishers: readonly Publisher[];
  /** Absent: nothing is carried outward. */
  readonly egress: { traffic(): Traffic } | undefined;
  readonly emit: (event: EnclaveEvent) => void;
  /** The parent's clock, Unix milliseconds. */
  readonly now: () => number;
  /** Since launch() was called. */
  readonly elapsedMs: () => number;
  readonly release: () => Promise<void>;
}

export class Enclave implements EnclaveDetails, AsyncDisposable {
  readonly id: string;
  readonly name: string;
  readonly cid: number;
  readonly memoryMiB: number;
  readonly cpuIds: readonly number[];
  readonly debug: boolean;
  readonly published: readonly Published[];
  /**
   * The app serves, and published ports are relayed. Rejects with E_APP_ENDED or E_ENCLAVE_CRASHED when it ends before.
   * An image of other tools has no control channel to say so: its heartbeat must do.
   */
  readonly ready: Promise<void>;
  /** How it ended. Never rejects. */
  readonly exited: Promise<ExitReport>;
  readonly #parts: EnclaveParts;
  readonly #ready = Promise.withResolvers<void>();
  readonly #phases = new Set<BootPhase>();
  readonly #logs = new Set<LogStream>();
  #isReady = false;
  #channel: ControlChannel | undefined;
  #report: ExitReport | undefined;
  #isGone = false;

  constructor(details: EnclaveDetails, parts: EnclaveParts) {
    this.id = details.id;
    this.name = details.name;
    this.cid = details.cid;
    this.memoryMiB = details.memoryMiB;
    this.cpuIds = details.cpuIds;
    this.debug = details.debug;
    this.published = parts.publishers.map(placeOf);
    this.#parts = parts;
    this.ready = this.#ready.promise;
    // Who does not ask whether it is ready hears of its end by `exited`.
    this.ready.catch(() => {});
    parts.control.claim(this.cid, (stream) => this.#acceptControl(stream));
    this.exited = parts.vm.hangup.then(() => this.#end());
    if (!parts.saysReady) this.#setReady([]);
  }

  /** Connect to a vsock port of the enclave. Rejects ECONNRESET (nothing listens) or ETIMEDOUT. */
  connect(port: number, options?: { timeoutMs?: number }): Promise<VsockStream> {
    return this.#parts.vsock.connect(this.cid, port, options);
  }

  traffic(): EnclaveTraffic {
    const { publishers, egress } = this.#parts;
    const published = publishers.map((publisher) => ({ ...placeOf(publisher), ...publisher.traffic() }));
    return { published, egress: egress?.traffic() };
  }

  /** The serial console, in debug mode only: elsewhere rejects ECONNRESET, as on hardware. */
  console(): Promise<VsockStream> {
    return this.#parts.vsock.connect(CID_HYPERVISOR, CONSOLE_PORT_BASE + this.cid);
  }

  /**
   * Log records from now on until the enclave ends. A slow reader loses the newest, which `dropped` of the next one counts.
   */
  logs(): AsyncIterable<LogEvent> {
    const stream = new LogStream();
    this.#logs.add(stream);
    stream.once("close", () => this.#logs.delete(stream));
    return stream;
  }

  /**
   * Ask the app to stop: it sees SIGTERM. After `deadlineMs` (default 10 s) init kills it, and a little later the enclave
   * is terminated. One without a control channel is terminated at once. Resolves as `exited`.
   */
  stop({ deadlineMs = STOP_DEADLINE_MS }: { readonly deadlineMs?: number } = {}): Promise<ExitReport> {
    if (this.#channel === undefined) return this.terminate();
    this.#channel.send({ type: "shutdown", deadlineMs });
    const timer = setTimeout(() => void this.terminate(), deadlineMs + REPORT_LIMIT_MS);
    return this.exited.finally(() => clearTimeout(timer));
  }

  /** End it now, as a power cut. Resolves as `exited`. */
  terminate(): Promise<ExitReport> {
    // What is gone already ended by itself, though its end may not be told yet.
    if (!this.#isGone) this.#report ??= { kind: "terminated" };
    this.#parts.vm.close();
    return this.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.terminate();
  }

  #acceptControl(stream: VsockStream): void {
    // init has one at a time: a new one means that it lost the one before, and tells its story from the start.
    this.#channel?.close();
    const { emit } = this.#parts;
    const channel = openControl(
      stream,
      (message) => this.#receive(message),
      (reason) => emit({ type: "fault", reason }),
    );
    this.#channel = channel;
    void channel.closed.then(() => {
      if (this.#channel === channel) this.#channel = undefined;
    });
  }

  #receive(message: EnclaveMessage): void {
    const { emit, elapsedMs } = this.#parts;
    switch (message.type) {
      case "phase":
        if (!this.#phases.has(message.phase)) emit({ ...message, elapsedMs: elapsedMs() });
        this.#phases.add(message.phase);
        break;
      case "ready":
        this.#setReady(message.ports);
        break;
      case "log":
        this.#tellLog({
          ...message,
          level: message.level ?? levelOfSource(message.source),
          dropped: message.dropped ?? 0,
        });
        break;
      case "stats":
        emit(message);
        break;
      case "clock":
        this.#channel?.answer({ type: "time", unixMs: this.#parts.now(), sentMs: message.sentMs });
        break;
      case "exit":
        this.#receiveExit(message);
    }
  }

  #tellLog(event: LogEvent): void {
    for (const stream of this.#logs) stream.add(event);
    this.#parts.emit(event);
  }

  #setReady(ports: readonly number[]): void {
    if (this.#isReady) return;
    this.#isReady = true;
    const { emit, elapsedMs, publishers, vsock } = this.#parts;
    const connect = (port: number) => vsock.open?.(this.cid, port) ?? this.connect(port);
    for (const publisher of publishers) publisher.start(connect);
    emit({ type: "ready", ports, elapsedMs: elapsedMs() });
    this.#ready.resolve();
  }

  #receiveExit({ status, reason, lastWords }: Extract<EnclaveMessage, { type: "exit" }>): void {
    // Terminated, or told already: each report would take a timer.
    if (this.#report !== undefined) return;
    this.#report = { kind: "app", status, reason, lastWords };
    this.#channel?.send({ type: "bye" });
    const timer = setTimeout(() => this.#parts.vm.close(), REBOOT_LIMIT_MS);
    void this.exited.then(() => clearTimeout(timer));
  }

  /** The hypervisor says it is gone. */
  async #end(): Promise<ExitReport> {
    this.#isGone = true;
    const { vm, emit, release } = this.#parts;
    await Promise.race([this.#channel?.closed, sleep(DRAIN_LIMIT_MS, undefined, { ref: false })]);
    const report = this.#report ?? { kind: "crash", console: vm.consoleTail?.() ?? "" };
    await release();
    this.#ready.reject(notReady(this.name, report));
    for (const stream of this.#logs) stream.finish();
    emit({ type: "exit", report });
    return report;
  }
}

function placeOf({ address, port, vsockPort }: Publisher): Published {
  return { address, port, vsockPort };
}

/** Why an enclave that ended so never got ready. */
export function notReady(name: string, report: ExitReport): CloisterError {
  switch (report.kind) {
    case "app": {
      const message = `${name}: got exit status ${report.status} (${report.reason}), expected it to be ready`;
      return new CloisterError("E_APP_ENDED", message, { details: report.lastWords.join("\n") });
    }
    case "crash":
      return new CloisterError("E_ENCLAVE_CRASHED", `${name}: ended before it was ready`, {
        details: report.console,
      });
    case "terminated":
      return new CloisterError("E_APP_ENDED", `${name}: terminated before it was ready`);
  }
}
