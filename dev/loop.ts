/** The loop: build, run, watch, and again; what runs stays until its successor can. */

import { type Bundle, bundleApp } from "../packer/bundle.ts";
import type { CloisterConfig } from "../packer/config.ts";
import { loadProject, type Project } from "../packer/project.ts";
import type { AppEnd, Backend, BackendEvents, Outcome } from "./backend.ts";
import type { LoopEvent } from "./event.ts";
import { describingFiles, isDescribing, isInstalled, sourceFiles } from "./files.ts";
import { defaultPorts, Gateway, type GatewayPort, type Listen } from "./gateway.ts";
import { digestFiles } from "./signature.ts";
import { Watcher } from "./watch.ts";

export interface LoopOptions {
  /** The project: where cloister.config.* and package.json are. Absolute. */
  readonly directory: string;
  /** Entry module; wins over the configuration. */
  readonly entry?: string;
  readonly overrides?: CloisterConfig;
  /** Default: each port of the configuration on the same number of 127.0.0.1, or a free one. */
  readonly publish?: readonly GatewayPort[];
  /** Published besides, whatever the configuration's ports are. */
  readonly more?: readonly GatewayPort[];
  readonly createBackend: (events: BackendEvents) => Backend;
  /** Given the project, for what of it publishing needs. */
  readonly listen: (project: Project) => Listen;
  readonly onEvent: (event: LoopEvent) => void;
}

/** What the next round of the loop has to do. */
interface Task {
  readonly changed: Set<string>;
  fresh: boolean;
  readonly since: number;
}

export class DevLoop implements AsyncDisposable {
  readonly #options: LoopOptions;
  readonly #backend: Backend;
  readonly #watcher: Watcher;
  #project: Project | undefined;
  /** Modules that the configuration is made of, as far as it could be read. */
  #inputs: ReadonlySet<string> = new Set();
  #bundle: Bundle | undefined;
  #gateway: Gateway | undefined;
  #task: Task | undefined;
  #working: Promise<void> = Promise.resolve();
  #isWorking = false;
  /** Of what runs, or is to. */
  #digest = "";
  #isServing = false;
  #round = 0;

  /** Throws what `createBackend` throws: E_QEMU_MISSING. */
  constructor(options: LoopOptions) {
    this.#options = options;
    this.#backend = options.createBackend({
      onEvent: (event) => options.onEvent(event),
      onStart: (reason) => options.onEvent({ type: "start", reason }),
      onMeasured: (measurements) => options.onEvent({ type: "measured", measurements }),
      onEnded: (end) => this.#end(end, false),
    });
    this.#watcher = new Watcher({
      onChange: (paths) => this.#add(paths, false),
      onUnwatched: (folder, code) => options.onEvent({ type: "unwatched", folder, code }),
    });
  }

  /** Build and run for the first time. Resolves when that build was made or failed; the loop goes on. */
  async start(): Promise<void> {
    this.#watcher.watch(describingFiles(this.#options.directory), { all: false });
    this.#add([], false);
    await this.#working;
  }

  /** Build again; `fresh`: and start in a new machine. */
  restart({ fresh }: { readonly fresh: boolean }): void {
    this.#add([], fresh);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#watcher[Symbol.dispose]();
    this.#task = undefined;
    await this.#working;
    this.#gateway?.[Symbol.dispose]();
    await this.#backend[Symbol.asyncDispose]();
  }

  #add(changed: readonly string[], fresh: boolean): void {
    this.#task ??= { changed: new Set(), fresh: false, since: performance.now() };
    for (const path of changed) this.#task.changed.add(path);
    this.#task.fresh ||= fresh;
    if (!this.#isWorking) this.#working = this.#work();
  }

  async #work(): Promise<void> {
    this.#isWorking = true;
    for (let task = this.#task; task !== undefined; task = this.#task) {
      this.#task = undefined;
      await this.#build(task);
    }
    this.#isWorking = false;
  }

  /** Never rejects. */
  async #build(task: Task): Promise<void> {
    const { directory, onEvent } = this.#options;
    onEvent({ type: "build", changed: [...task.changed] });
    try {
      const isDescribed = [...task.changed].some((path) => isDescribing(directory, path, this.#inputs));
      const known = isDescribed || task.changed.size === 0 ? undefined : this.#project;
      const project = known ?? (await this.#load());
      const bundle = await bundleApp(project);
      this.#bundle = bundle;
      this.#watch(false);
      for (const text of bundle.warnings) onEvent({ type: "warning", text });
      await this.#publish(project);
      this.#run(project, bundle, task);
    } catch (error) {
      this.#watch(true);
      onEvent({ type: "failed", error });
    }
  }

  async #load(): Promise<Project> {
    const { directory, entry, overrides } = this.#options;
    // One that cannot be loaded is tried again with the next change, whatever changes.
    this.#project = undefined;
    const inputs = new Set<string>();
    try {
      this.#project = await loadProject({
        directory,
        ...(entry !== undefined && { entry }),
        ...(overrides !== undefined && { overrides }),
        onInput: (path) => void (isInstalled(path) || inputs.add(path)),
      });
      return this.#project;
    } finally {
      this.#inputs = inputs;
    }
  }

  /** `all`: a build that failed may lack a file that nobody knows of. */
  #watch(all: boolean): void {
    const sources = this.#project === undefined ? [] : sourceFiles(this.#project, this.#bundle);
    const described = describingFiles(this.#options.directory);
    this.#watcher.watch([...described, ...this.#inputs, ...sources], { all });
  }

  /** Once, and again when the configuration has other ports. */
  async #publish(project: Project): Promise<void> {
    const { publish = defaultPorts(project.config.ports), more = [], listen, onEvent } = this.#options;
    const { proxyProtocol, tls } = project.config;
    const key = JSON.stringify([publish, proxyProtocol, tls]);
    if (this.#gateway?.key === key) return;
    this.#gateway?.[Symbol.dispose]();
    const connect = (port: number) => this.#backend.connect(port);
    this.#gateway = await Gateway.open([...publish, ...more], { key, listen: listen(project), connect });
    onEvent({ type: "published", ports: this.#gateway.ports, tls });
  }

  #run(project: Project, bundle: Bundle, task: Task): void {
    const { onEvent } = this.#options;
    const bundleMs = performance.now() - task.since;
    const digest = `${digestFiles([...bundle.files, ...bundle.packages])} ${JSON.stringify(project)}`;
    const isAsked = task.fresh || task.changed.size === 0;
    if (!isAsked && digest === this.#digest && this.#isServing) {
      onEvent({ type: "unchanged" });
      return;
    }
    this.#digest = digest;
    const round = ++this.#round;
    if (this.#gateway !== undefined) this.#gateway.state = "waiting";
    this.#backend.run({ project, bundle }, { fresh: task.fresh }).then(
      (outcome) => this.#finish(round, outcome, { bundleMs, since: task.since }),
      (error) => {
        if (round !== this.#round) return;
        this.#setServing(false);
        onEvent({ type: "failed", error });
      },
    );
  }

  #finish(round: number, outcome: Outcome, times: { bundleMs: number; since: number }): void {
    if (round !== this.#round || outcome.kind === "superseded") return;
    if (outcome.kind === "ended") {
      this.#end(outcome, outcome.replaced);
      return;
    }
    this.#setServing(true);
    const { bundleMs, since } = times;
    this.#options.onEvent({ type: "serving", bundleMs, elapsedMs: performance.now() - since });
  }

  #end({ status, reason }: AppEnd, replaced: boolean): void {
    this.#setServing(replaced);
    // The same files again may end otherwise.
    this.#digest = "";
    this.#options.onEvent({ type: "ended", status, reason, replaced });
  }

  #setServing(isServing: boolean): void {
    this.#isServing = isServing;
    if (this.#gateway !== undefined) this.#gateway.state = isServing ? "serving" : "down";
  }
}
