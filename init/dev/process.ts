/** The process of one generation, as PID 1 sees it. */
import { type ChildProcess, spawn } from "node:child_process";
import { constants } from "node:os";
import type { Duplex } from "node:stream";
import type { ExitReason } from "../../format/control.ts";
import { readLines } from "./lines.ts";
import { CHANNEL, type FromGeneration, SCRIPT, type ToGeneration } from "./message.ts";

/** What a generation that is replaced may take to end its work. */
const RETIRE_LIMIT_MS = 5_000;

export interface End {
  /** 0 to 255. */
  readonly status: number;
  readonly reason: ExitReason;
}

export interface BoundSocket {
  readonly fd: number;
  readonly port: number;
}

export class Generation {
  number = 0;
  /** How it ended. Never rejects. */
  readonly ended: Promise<End>;
  /** It serves, or it ended. */
  readonly settled: Promise<unknown>;
  readonly #child: ChildProcess;
  readonly #channel: Duplex;
  readonly #onMessage: (message: FromGeneration) => void;
  readonly #serving = Promise.withResolvers<void>();
  readonly #retired = Promise.withResolvers<void>();
  #inspector = Promise.withResolvers<number>();
  #end: End | undefined;

  /** Starts Node; the app is loaded when it is told to `begin`. `sockets`: of the configuration's ports. */
  constructor(sockets: readonly BoundSocket[], onMessage: (message: FromGeneration) => void) {
    this.#onMessage = onMessage;
    // Without the option Node writes the inspector's address, which is another one outside, to the app's log.
    const words = ["--inspect-publish-uid=http", SCRIPT, ...sockets.map(({ port }) => String(port))];
    this.#child = spawn(process.execPath, words, {
      stdio: ["ignore", "inherit", "inherit", "pipe", ...sockets.map(({ fd }) => fd)],
    });
    this.#channel = this.#child.stdio[CHANNEL] as Duplex;
    readLines(this.#channel, (line) => this.#hear(JSON.parse(line) as FromGeneration));
    this.ended = this.#watch();
    this.settled = Promise.race([this.#serving.promise, this.ended]);
  }

  send(message: ToGeneration): void {
    this.#channel.write(`${JSON.stringify(message)}\n`);
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Have it let go of the ports, and end. Resolves when the ports are free. */
  async retire(): Promise<void> {
    this.send({ type: "retire" });
    // An app that blocks its event loop hears nothing.
    const timer = setTimeout(() => this.signal("SIGKILL"), RETIRE_LIMIT_MS);
    void this.ended.then(() => clearTimeout(timer));
    await Promise.race([this.#retired.promise, this.ended]);
  }

  /** The port on the loopback where its inspector listens; rejects where it ends before it says so. */
  async inspector(): Promise<number> {
    this.#inspector = Promise.withResolvers<number>();
    this.send({ type: "inspect" });
    const gone = this.ended.then(() => Promise.reject(new Error("the app ended")));
    return await Promise.race([this.#inspector.promise, gone]);
  }

  #hear(message: FromGeneration): void {
    if (message.type === "end") this.#end = message;
    if (message.type === "serving") this.#serving.resolve();
    if (message.type === "retired") this.#retired.resolve();
    if (message.type === "inspector") this.#inspector.resolve(message.port);
    this.#onMessage(message);
  }

  /** After 'close' all that it said has been heard. */
  #watch(): Promise<End> {
    const { promise, resolve } = Promise.withResolvers<End>();
    this.#child.once("error", (error) => {
      this.#onMessage({ type: "say", line: `no process for the app: ${error.message}` });
      resolve({ status: 127, reason: "load" });
    });
    this.#child.once("close", (status, signal) => resolve(this.#end ?? endOf(status, signal)));
    return promise;
  }
}

/** One that did not say how it ended was ended from outside, or crashed: 128 + the signal, as a shell reports it. */
function endOf(status: number | null, signal: NodeJS.Signals | null): End {
  return { status: signal === null ? (status ?? 1) : 128 + constants.signals[signal], reason: "signal" };
}
