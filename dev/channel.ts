/** The parent's end of the development channel: sends what differs, hears what became of it. */
import { setTimeout as sleep } from "node:timers/promises";
import { PORT_DEVELOPMENT } from "../format/abi.ts";
import { type DevelopmentReport, encodeReplacement, ReportDecoder } from "../format/development.ts";
import { CloisterError } from "../format/errors.ts";
import type { VsockStream } from "../launcher/device.ts";
import type { AppFile } from "../packer/bundle.ts";
import { digestFile } from "./signature.ts";

/** The channel opens within milliseconds of the heartbeat, or seconds on a busy machine. */
const RETRY_MS = 25;

export class Channel {
  readonly #stream: VsockStream;
  /** Digests of what lies in the enclave, by path. */
  #sent: ReadonlyMap<string, string>;
  #isOpen = true;

  /** `files`: what the image has. `onReport` hears of every generation; `onFault` once, of an enclave that breaks the protocol. */
  constructor(
    stream: VsockStream,
    files: readonly AppFile[],
    handlers: {
      readonly onReport: (report: DevelopmentReport) => void;
      readonly onFault: (error: CloisterError) => void;
    },
  ) {
    this.#stream = stream;
    this.#sent = digests(files);
    const decoder = new ReportDecoder();
    stream.on("data", (chunk: Buffer) => {
      // A stream that was destroyed may still give what it had read.
      if (!this.#isOpen) return;
      try {
        for (const report of decoder.push(chunk)) handlers.onReport(report);
      } catch (error) {
        if (!(error instanceof CloisterError)) throw error;
        this.#isOpen = false;
        stream.destroy();
        handlers.onFault(error);
      }
    });
    // 'close' follows.
    stream.on("error", () => {});
    stream.on("end", () => stream.destroy());
    stream.on("close", () => {
      this.#isOpen = false;
    });
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  /** Have the enclave run these files as this generation. */
  send(generation: number, files: readonly AppFile[]): void {
    const next = digests(files);
    const changed = files.filter(({ path }) => this.#sent.get(path) !== next.get(path));
    const removed = [...this.#sent.keys()].filter((path) => !next.has(path));
    this.#stream.write(encodeReplacement({ generation, files: changed, removed }));
    this.#sent = next;
  }
}

function digests(files: readonly AppFile[]): ReadonlyMap<string, string> {
  return new Map(files.map((file) => [file.path, digestFile(file)]));
}

/** Connect as soon as the enclave listens. Rejects with the signal's reason: it is gone. */
export async function connectChannel(
  connect: (port: number) => Promise<VsockStream>,
  signal: AbortSignal,
): Promise<VsockStream> {
  for (;;) {
    signal.throwIfAborted();
    try {
      return await connect(PORT_DEVELOPMENT);
    } catch (error) {
      // Refused: init has not come so far.
      if ((error as NodeJS.ErrnoException).code !== "ECONNRESET") throw error;
    }
    await sleep(RETRY_MS, undefined, { signal });
  }
}
