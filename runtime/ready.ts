/** When an app is ready: its module is evaluated, and what it serves is served. */

export interface ReadyOptions {
  /** Ports of the measured configuration; none: the app serves nothing, so evaluated is ready. */
  readonly ports: readonly number[];
  /** Called once. `listening`: the vsock ports reachable by then. */
  readonly onReady: (listening: readonly number[]) => void;
}

export class Readiness {
  readonly #options: ReadyOptions;
  readonly #listening = new Set<number>();
  #evaluated = false;
  #ready = false;

  constructor(options: ReadyOptions) {
    this.#options = options;
  }

  evaluated(): void {
    this.#evaluated = true;
    this.#check();
  }

  listening(port: number): void {
    this.#listening.add(port);
    this.#check();
  }

  #check(): void {
    if (this.#ready || !this.#evaluated) return;
    if (this.#listening.size === 0 && this.#options.ports.length > 0) return;
    this.#ready = true;
    this.#options.onReady([...this.#listening]);
  }
}
