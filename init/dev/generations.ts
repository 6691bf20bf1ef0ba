/** The generations of the app: one serves, one may be loading, one process waits for the next. */
import type { DevelopmentReport } from "../../format/development.ts";
import type { FromGeneration } from "./message.ts";
import { type BoundSocket, type End, Generation } from "./process.ts";

export interface GenerationsOptions {
  /** Of the configuration's ports: each generation has them. */
  readonly sockets: readonly BoundSocket[];
  readonly onReport: (report: DevelopmentReport) => void;
  /** A line for the log. */
  readonly say: (line: string) => void;
}

export class Generations {
  readonly #options: GenerationsOptions;
  #spare: Generation | undefined;
  #loading: Generation | undefined;
  #serving: Generation | undefined;

  constructor(options: GenerationsOptions) {
    this.#options = options;
    this.#spare = this.#start();
  }

  get isServing(): boolean {
    return this.#serving !== undefined;
  }

  /** Load what lies in /app now. The generation before serves until this one can. */
  begin(number: number): void {
    this.#loading?.signal("SIGKILL");
    const generation = this.#spare ?? this.#start();
    this.#spare = undefined;
    this.#loading = generation;
    generation.number = number;
    generation.send({ type: "begin" });
    // While it loads, another Node that starts would only slow it down.
    void generation.settled.then(() => {
      this.#spare ??= this.#start();
    });
  }

  /** Ask the app to stop, as SIGTERM does. Resolves with its end; undefined where none runs. */
  async stop(): Promise<End | undefined> {
    const generation = this.#serving ?? this.#loading;
    generation?.signal("SIGTERM");
    return await generation?.ended;
  }

  /** Where the inspector of the newest generation listens on the loopback; undefined where none runs. */
  async inspector(): Promise<number | undefined> {
    return await (this.#loading ?? this.#serving)?.inspector();
  }

  #start(): Generation {
    const generation: Generation = new Generation(this.#options.sockets, (message) =>
      this.#hear(generation, message),
    );
    void generation.ended.then((end) => this.#forget(generation, end));
    return generation;
  }

  #hear(generation: Generation, message: FromGeneration): void {
    if (message.type === "say") this.#options.say(message.line);
    if (message.type === "loaded" && generation === this.#loading) void this.#replaceBy(generation);
    if (message.type === "serving" && generation === this.#serving) {
      this.#options.onReport({ type: "serving", generation: generation.number, ports: message.ports });
    }
  }

  async #replaceBy(generation: Generation): Promise<void> {
    const before = this.#serving;
    this.#serving = undefined;
    await before?.retire();
    // Meanwhile it may have ended, or a newer one begun.
    if (generation !== this.#loading) return;
    this.#loading = undefined;
    this.#serving = generation;
    generation.send({ type: "serve" });
  }

  #forget(generation: Generation, { status, reason }: End): void {
    // The next one says it, if there is no memory for another Node.
    if (generation === this.#spare) this.#spare = undefined;
    const isCurrent = generation === this.#serving || generation === this.#loading;
    if (generation === this.#serving) this.#serving = undefined;
    if (generation === this.#loading) this.#loading = undefined;
    if (!isCurrent) return;
    const replaced = this.#serving !== undefined;
    this.#options.onReport({ type: "ended", generation: generation.number, status, reason, replaced });
  }
}
