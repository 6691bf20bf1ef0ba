/**
 * The life of one enclave under its name: launched, logged, restarted, stopped, told of in the run directory. One
 * supervisor a process; other commands reach it by its socket.
 */
import type { FileHandle } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { CloisterError } from "../format/errors.ts";
import { directoryError } from "./directory.ts";
import { type Enclave, notReady } from "./enclave.ts";
import type { EnclaveEvent } from "./event.ts";
import { Health } from "./health.ts";
import { identify } from "./identity.ts";
import { type LaunchOptions, launch } from "./launch.ts";
import type { TcpPlace } from "./listener.ts";
import { describeOpenFile, openEif } from "./measure.ts";
import { metricsText } from "./metrics.ts";
import { type ProbeServer, serveProbes } from "./probe.ts";
import { again } from "./publish.ts";
import type { EnclaveEnd, EnclaveRecord, EndedBy } from "./record.ts";
import type { Registry } from "./registry.ts";
import { backoffMs, HEALTHY_MS, isFailure, type RestartPolicy } from "./restart.ts";
import { recordError, type Service, type ServiceRequest, serve } from "./service.ts";
import { Shelf } from "./shelf.ts";

/** What a supervisor tells whoever watches; `restart`: in `delayMs`, after this many failures in a row. */
export type SupervisorEvent =
  | EnclaveEvent
  | { readonly type: "restart"; readonly failures: number; readonly delayMs: number }
  /** A full disk swallowed this many events before this one. */
  | { readonly type: "lost"; readonly events: number };

export interface SupervisorOptions extends Omit<LaunchOptions, "onEvent" | "signal"> {
  readonly registry: Registry;
  /** What an enclave that nobody named is called, where that is free. */
  readonly defaultName: string;
  readonly emulated: boolean;
  /** The record stays after the end, for `wait` and `ps -a`. */
  readonly keep: boolean;
  readonly restart?: RestartPolicy;
  /** Answer probes and serve metrics there (see probe.ts). */
  readonly health?: TcpPlace;
  readonly onEvent?: (event: SupervisorEvent) => void;
  /** Bytes of the serial console, in debug mode. */
  readonly onConsole?: (chunk: Buffer) => void;
}

export interface StopOptions {
  readonly by: EndedBy;
  /** How long the app may take; undefined: terminate at once. */
  readonly deadlineMs?: number | undefined;
}

export class Supervisor {
  /** The first heartbeat came. Rejects as launch(); nothing is left then. */
  readonly started: Promise<EnclaveRecord>;
  /** The app serves, in whichever of its starts. Rejects with E_APP_ENDED or E_ENCLAVE_CRASHED, or as `started`. */
  readonly ready: Promise<void>;
  /** It ended for good, and everybody was told. Never rejects. */
  readonly ended: Promise<EnclaveEnd>;
  readonly #eif: string;
  readonly #options: SupervisorOptions;
  readonly #file: FileHandle;
  readonly #shelf: Shelf;
  readonly #service: Service;
  readonly #started = Promise.withResolvers<EnclaveRecord>();
  readonly #ready = Promise.withResolvers<void>();
  readonly #finished = Promise.withResolvers<EnclaveEnd>();
  /** Aborted by whatever ends it. */
  readonly #stopping = new AbortController();
  readonly #health = new Health(() => this.record.state);
  #probes: ProbeServer | undefined;
  #stop: StopOptions | undefined;
  #enclave: Enclave | undefined;
  #failures = 0;
  /** Why the last launch failed. */
  #reason: unknown;

  /**
   * Claim the name and begin. Rejects with CloisterError: E_EIF_READ, E_ENCLAVE_NAME, E_NAME_TAKEN, E_RUN_DIRECTORY,
   * E_PORT_TAKEN, E_PORT_UNUSABLE.
   * `eif`: absolute path.
   */
  static async begin(eif: string, options: SupervisorOptions): Promise<Supervisor> {
    await using stack = new AsyncDisposableStack();
    const file = stack.use(await openEif(eif));
    const { registry, name, defaultName, emulated, debug = false } = options;
    const identity = identify(process.pid);
    if (identity === undefined) throw new Error("BUG: this process has no /proc/self/stat");
    const wanted = { name: name ?? defaultName, isDefault: name === undefined };
    const entry = registry.claim(wanted, identity, { eif, emulated, debug });
    stack.defer(() => void registry.remove(entry.record.name, () => true));
    try {
      const shelf = stack.use(new Shelf(entry));
      let answer = (_request: ServiceRequest): Promise<unknown> =>
        Promise.reject(new Error("BUG: asked too early"));
      const service = await serve(shelf.socket, (request) => answer(request));
      stack.defer(() => service.close());
      const supervisor = new Supervisor(eif, options, file, shelf, service);
      answer = (request) => supervisor.#answer(request);
      if (options.health !== undefined) await supervisor.#serveProbes(options.health);
      stack.move();
      void supervisor.#live();
      return supervisor;
    } catch (error) {
      throw directoryError(entry.folder, error);
    }
  }

  private constructor(
    eif: string,
    options: SupervisorOptions,
    file: FileHandle,
    shelf: Shelf,
    service: Service,
  ) {
    this.#eif = eif;
    this.#options = options;
    this.#file = file;
    this.#shelf = shelf;
    this.#service = service;
    this.started = this.#started.promise;
    this.ready = this.#ready.promise;
    // Whoever does not ask for these hears of the end by `ended`.
    this.started.catch(() => {});
    this.ready.catch(() => {});
    this.ended = this.#finished.promise.then(async (end) => {
      await this.#service.close();
      await this.#file.close();
      this.#shelf[Symbol.dispose]();
      if (!options.keep) this.#remove();
      return end;
    });
  }

  async #serveProbes(wanted: TcpPlace): Promise<void> {
    this.#probes = await serveProbes(wanted, {
      report: () => this.#health.report(),
      metrics: () =>
        metricsText({
          record: this.record,
          health: this.#health.report(),
          boot: this.#health.boot,
          traffic: this.#enclave?.traffic(),
        }),
    });
    const { address, port } = this.#probes;
    this.#shelf.update({ health: { address, port } });
  }

  get record(): EnclaveRecord {
    return this.#shelf.record;
  }

  /** End it; while it boots, at once. The first who asks is the one who is named. Resolves when it ended. */
  stop(options: StopOptions): Promise<EnclaveEnd> {
    this.#stop ??= options;
    const text = `${this.record.name}: interrupted while it booted`;
    this.#stopping.abort(new CloisterError("E_INTERRUPTED", text));
    if (this.#enclave !== undefined) this.#end(this.#enclave, options);
    return this.#finished.promise;
  }

  #end(enclave: Enclave, { deadlineMs }: StopOptions): void {
    this.#shelf.update({ state: "stopping" });
    if (deadlineMs === undefined) void enclave.terminate();
    else void enclave.stop({ deadlineMs });
  }

  /** This process cannot go on: write down why. The enclave ends with the process. */
  fail(error: unknown): void {
    this.#shelf.update({ state: "ended", end: { at: Date.now(), error: recordError(error) } });
  }

  async #answer(request: ServiceRequest): Promise<unknown> {
    switch (request.verb) {
      case "stop":
        return this.stop({ by: "stop", deadlineMs: request.deadlineMs });
      case "terminate":
        return this.stop({ by: "terminate" });
      case "wait":
        return this.#finished.promise;
      case "describe":
        return describeOpenFile(this.#file, this.#eif);
      case "health":
        return this.#health.report();
    }
    const { verb } = request as { readonly verb: unknown };
    throw new CloisterError("E_USAGE", `supervisor: got the request "${verb}", expected one of this release`);
  }

  async #live(): Promise<void> {
    let end: EnclaveEnd;
    for (;;) {
      end = await this.#once();
      const delayMs = this.#restartDelay(end);
      if (delayMs === undefined) break;
      this.#emit({ type: "restart", failures: this.#failures, delayMs });
      this.#shelf.update({ state: "restarting", restarts: this.record.restarts + 1 });
      // Whoever stops it does not wait for a restart.
      await sleep(delayMs, undefined, { signal: this.#stopping.signal }).catch(() => {});
      if (this.#stopping.signal.aborted) break;
    }
    // Whoever hears of the end may start another on the same port.
    await this.#probes?.[Symbol.asyncDispose]();
    const by = this.#stop?.by;
    this.#finish({ ...end, at: Date.now(), ...(by !== undefined && { by }) });
  }

  #finish(end: EnclaveEnd): void {
    const reason = "error" in end ? this.#reason : notReady(this.record.name, end.report);
    // Both are settled long since where it was started, and ready.
    this.#started.reject(reason);
    this.#ready.reject(reason);
    if (this.record.id === undefined) this.#remove();
    else this.#shelf.update({ state: "ended", end });
    this.#finished.resolve(end);
  }

  #remove(): void {
    const { pid } = process;
    this.#options.registry.remove(this.record.name, ({ supervisor }) => supervisor.pid === pid);
  }

  /** One launch and the life that follows. */
  async #once(): Promise<EnclaveEnd> {
    try {
      await using enclave = await this.#launch();
      this.#enclave = enclave;
      await this.#introduce(enclave);
      const upSince = performance.now();
      const report = await enclave.exited;
      if (performance.now() - upSince >= HEALTHY_MS) this.#failures = 0;
      return { at: Date.now(), report };
    } catch (error) {
      this.#reason = error;
      return { at: Date.now(), error: recordError(error) };
    } finally {
      this.#enclave = undefined;
    }
  }

  async #launch(): Promise<Enclave> {
    const { published, name } = this.record;
    // Its signal would terminate an enclave that runs; that one is asked to stop.
    const launching = new AbortController();
    const abort = () => launching.abort(this.#stopping.signal.reason);
    this.#stopping.signal.addEventListener("abort", abort);
    if (this.#stopping.signal.aborted) abort();
    try {
      return await launch(this.#eif, {
        ...this.#options,
        name,
        // A port that was free at first stays the same one.
        ...(published !== undefined && { publish: again(this.#options.publish ?? [], published) }),
        signal: launching.signal,
        onEvent: (event) => this.#emit(event),
      });
    } finally {
      this.#stopping.signal.removeEventListener("abort", abort);
    }
  }

  async #introduce(enclave: Enclave): Promise<void> {
    const { id, cid, memoryMiB, cpuIds, published } = enclave;
    this.#shelf.update({ state: "running", id, cid, memoryMiB, cpuIds, published });
    enclave.ready.then(
      () => this.#ready.resolve(),
      // `exited` tells, and #finish where it is not started again.
      () => {},
    );
    if (enclave.debug) await this.#recordConsole(enclave);
    this.#started.resolve(this.record);
    // It was asked to stop in the same moment.
    if (this.#stop !== undefined) this.#end(enclave, this.#stop);
  }

  /** One reader for all: what it said before somebody looked is kept, and the hypervisor need not serve several. */
  async #recordConsole(enclave: Enclave): Promise<void> {
    const console = await enclave.console();
    console.on("error", () => {});
    console.on("data", (chunk: Buffer) => {
      this.#shelf.console(chunk);
      this.#options.onConsole?.(chunk);
    });
  }

  #emit(event: SupervisorEvent): void {
    // A number that the next one replaces is no record.
    if (event.type !== "stats") this.#shelf.log(event);
    this.#health.observe(event);
    this.#options.onEvent?.(event);
  }

  /** Undefined: it ended for good. */
  #restartDelay(end: EnclaveEnd): number | undefined {
    const { restart } = this.#options;
    const failed = "error" in end || isFailure(end.report);
    // What does not start at first is told to whoever starts it.
    if (restart === undefined || this.#stop !== undefined || !failed || this.record.id === undefined)
      return undefined;
    this.#failures++;
    return this.#failures > restart.max ? undefined : backoffMs(this.#failures);
  }
}
