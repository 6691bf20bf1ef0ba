/** The enclave's end of the control channel: tells the parent what happens, obeys it, and does without it. */
import type { Duplex } from "node:stream";
import { VSOCK_WRITE_MAX } from "../format/abi.ts";
import {
  type EnclaveMessage,
  encodeMessage,
  encodeMessages,
  MessageDecoder,
  type ParentMessage,
  readParentMessage,
} from "../format/control.ts";
import type { RecordRing } from "./records.ts";

/** A parent that is absent (nitro-cli) refuses in microseconds, so asking now and then costs nothing. */
const RETRY_FIRST_MS = 1_000;
const RETRY_MAX_MS = 30_000;

export interface ChannelOptions {
  /** The first message on every connection. */
  readonly hello: EnclaveMessage;
  readonly ring: RecordRing;
  readonly connect: () => Promise<Duplex>;
  readonly onMessage: (message: ParentMessage) => void;
  /** The first connection stands. */
  readonly onFirstConnect: () => void;
}

/**
 * One connection at a time, made again when it is lost. Every connection hears the whole story so far (hello, phases,
 * ready), then log records as fast as the parent reads.
 */
export class ControlChannel {
  readonly #options: ChannelOptions;
  readonly #story: EnclaveMessage[];
  #told = 0;
  /** The latest of each type that nobody was told yet. */
  readonly #news = new Map<EnclaveMessage["type"], EnclaveMessage>();
  #stream: Duplex | undefined;
  #blocked = false;
  #retryMs = RETRY_FIRST_MS;
  #connected = false;
  #opening: Promise<void> = Promise.resolve();
  #ended: (() => void) | undefined;

  constructor(options: ChannelOptions) {
    this.#options = options;
    this.#story = [options.hello];
  }

  /** Connect, and again whenever there is no connection. Resolves when this attempt is over. */
  open(): Promise<void> {
    this.#opening = this.#open();
    return this.#opening;
  }

  async #open(): Promise<void> {
    try {
      this.#use(await this.#options.connect());
    } catch {
      // ECONNRESET, ETIMEDOUT, ENODEV: no parent that listens. The enclave does without; later there may be one.
      this.#retry();
    }
  }

  /** Add to the story: what every parent should know. */
  tell(message: EnclaveMessage): void {
    this.#story.push(message);
    this.pump();
  }

  /** Send now, past what is waiting, or not at all. False: there is no parent, or it does not read. */
  send(message: EnclaveMessage): boolean {
    if (this.#stream === undefined || this.#blocked) return false;
    this.#blocked = !this.#stream.write(encodeMessage(message));
    return true;
  }

  /** Tell it ahead of the log. Where the parent does not read, a later one of the same type takes its place. */
  offer(message: EnclaveMessage): void {
    this.#news.set(message.type, message);
    this.pump();
  }

  /** Send what is waiting; call after adding to the ring. */
  pump(): void {
    const stream = this.#stream;
    while (stream !== undefined && !this.#blocked) {
      const lines = this.#waiting();
      if (lines.length === 0) break;
      this.#blocked = !stream.write(lines);
    }
  }

  /**
   * Send everything that waits, then `last`. Resolves when the parent said bye or is gone, at once where there is none.
   * The caller sets the deadline.
   */
  async finish(last: EnclaveMessage): Promise<void> {
    // An app can end before the first connection stands.
    await this.#opening;
    const stream = this.#stream;
    if (stream === undefined) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#ended = resolve;
    this.#stream = undefined;
    for (let lines = this.#waiting(); lines.length > 0; lines = this.#waiting()) stream.write(lines);
    stream.end(encodeMessage(last));
    await promise;
  }

  /** Many lines, one write: each write is a vsock packet. */
  #waiting(): Uint8Array {
    return encodeMessages(() => this.#next(), VSOCK_WRITE_MAX);
  }

  #next(): EnclaveMessage | undefined {
    if (this.#told < this.#story.length) return this.#story[this.#told++];
    for (const [type, message] of this.#news) {
      this.#news.delete(type);
      return message;
    }
    return this.#options.ring.shift();
  }

  #use(stream: Duplex): void {
    const decoder = new MessageDecoder(readParentMessage, (message) => this.#obey(message));
    this.#stream = stream;
    this.#told = 0;
    this.#blocked = false;
    this.#retryMs = RETRY_FIRST_MS;
    if (!this.#connected) this.#options.onFirstConnect();
    this.#connected = true;
    stream.on("data", (chunk: Uint8Array) => {
      try {
        decoder.push(chunk);
      } catch (error) {
        stream.destroy(error as Error);
      }
    });
    stream.on("drain", () => {
      this.#blocked = false;
      this.pump();
    });
    stream.on("end", () => stream.destroy());
    // What went wrong with a parent's connection is the parent's to know; 'close' follows.
    stream.on("error", () => {});
    stream.on("close", () => {
      this.#stream = undefined;
      if (this.#ended) this.#ended();
      else this.#retry();
    });
    this.pump();
  }

  #obey(message: ParentMessage): void {
    if (message.type === "bye") this.#ended?.();
    else this.#options.onMessage(message);
  }

  #retry(): void {
    setTimeout(() => void this.open(), this.#retryMs).unref();
    this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MAX_MS);
  }
}
