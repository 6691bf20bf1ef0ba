/** When an app is ready: its module is evaluated, and what it serves is served, or it says so. */

export interface ReadyOptions {
  /** Of the measured configuration: a server that listens, or the app's own word. */
  readonly mode: "listen" | "app";
  /** Ports of the measured configuration; none: the app serves nothing, so evaluated is ready. */
  readonly ports: readonly number[];
  /** Called once. `listening`: the vsock ports reachable by then. */
  readonly onReady: (listening: readonly number[]) => void;
}

export class Readiness {
  readonly #options: ReadyOptions;
  readonly #listening = new Set<number>();
  #evaluated = false;
  #said = false;
  #ready = false;

  constructor(options: ReadyOptions) {
    this.#options = options;
  }

  /** Only now is what an app of requests exports served, whatever it said before. */
  evaluated(): void {
    this.#evaluated = true;
    this.#check();
  }

  listening(port: number): void {
    this.#listening.add(port);
    this.#check();
  }

  /** The app's own word. Where a server that listens decides, nothing hangs on it. */
  said(): void {
    this.#said = true;
    this.#check();
  }

  #check(): void {
    if (this.#ready || !this.#evaluated || !this.#isServing()) return;
    this.#ready = true;
    this.#options.onReady([...this.#listening]);
  }

  #isServing(): boolean {
    const { mode, ports } = this.#options;
    return mode === "app" ? this.#said : this.#listening.size > 0 || ports.length === 0;
  }
}
