/**
 * The control channel (enclave → CID_PARENT, PORT_CONTROL): one JSON object a line, UTF-8, each side bounded.
 * Either side ignores a type and a field it does not know, so that releases can meet.
 */
import { CloisterError, mismatch } from "./errors.ts";
import { JsonNode } from "./json.ts";
import { LOG_LEVELS, LOG_SOURCES, type LogLevel, type LogSource } from "./log.ts";
import { type EnclaveStats, readStats } from "./stats.ts";

/** Longest line either side accepts, bytes with the newline; a longer one ends the channel. */
export const CONTROL_LINE_MAX = 64 * 1024;
/**
 * Longest text of one log record, bytes of JSON: a byte of text may take six (`\u0000`). A longer line of the app is
 * cut into several records, see `splitLogText`.
 */
export const LOG_TEXT_MAX = 16 * 1024;

const PHASES = ["kernel", "init", "heartbeat", "control", "app", "ready"] as const;
export type BootPhase = (typeof PHASES)[number];

export const EXIT_REASONS = [
  "return",
  "exit",
  "exception",
  "rejection",
  "signal",
  "load",
  "killed",
  "abort",
] as const;

/**
 * Why the app ended. `killed`: the shutdown deadline passed and init ended it. `abort`: process.abort(), or Node gave up
 * (out of heap).
 */
export type ExitReason = (typeof EXIT_REASONS)[number];

export type EnclaveMessage =
  | { readonly type: "hello"; readonly protocol: 1; readonly node: string; readonly name: string }
  /** `uptimeMs`: kernel time since boot, CLOCK_BOOTTIME. */
  | { readonly type: "phase"; readonly phase: BootPhase; readonly uptimeMs: number }
  | { readonly type: "ready"; readonly uptimeMs: number; readonly ports: readonly number[] }
  /**
   * `time`: Unix milliseconds by the enclave's clock. `level`: releases that knew none left it out, see `levelOfSource`.
   * `text`: a line, and where that is a JSON object its JSON. `dropped`: records lost before this one.
   */
  | {
      readonly type: "log";
      readonly time: number;
      readonly source: LogSource;
      readonly level?: LogLevel;
      readonly text: string;
      readonly dropped?: number;
    }
  | { readonly type: "stats"; readonly stats: EnclaveStats }
  /** What time is it? `sentMs`: by a counter of the enclave's, for the answer to repeat. */
  | { readonly type: "clock"; readonly sentMs: number }
  /** The app's end: last message of every enclave that did not crash. `lastWords`: last lines of stderr. */
  | {
      readonly type: "exit";
      readonly status: number;
      readonly reason: ExitReason;
      readonly lastWords: readonly string[];
    };

export type ParentMessage =
  /** Ask the app to stop: it sees SIGTERM, and is ended when `deadlineMs` have passed. */
  | { readonly type: "shutdown"; readonly deadlineMs: number }
  /** The answer to `clock`: Unix milliseconds by the parent's clock, and the question's `sentMs`. */
  | { readonly type: "time"; readonly unixMs: number; readonly sentMs: number }
  /** The parent has the exit report; the enclave may reboot. */
  | { readonly type: "bye" };

const PORT_MAX = 2 ** 32 - 2;
const encoder = new TextEncoder();

/**
 * One line with its newline. The `lastWords` of an exit message are cut from the front so that it always fits; anything
 * else longer than CONTROL_LINE_MAX throws E_CONTROL.
 */
export function encodeMessage(message: EnclaveMessage | ParentMessage): Uint8Array {
  return encoder.encode(messageLine(message));
}

/**
 * The lines of the messages that `next` has, until it has no more (undefined) or there are about `enough` bytes. Empty
 * without messages. Throws as `encodeMessage`.
 */
export function encodeMessages(next: () => EnclaveMessage | undefined, enough: number): Uint8Array {
  let lines = "";
  while (lines.length < enough) {
    const message = next();
    if (message === undefined) break;
    lines += messageLine(message);
  }
  return encoder.encode(lines);
}

function messageLine(message: EnclaveMessage | ParentMessage): string {
  const fitting =
    message.type === "exit" ? { ...message, lastWords: fitLastWords(message.lastWords) } : message;
  const line = `${JSON.stringify(fitting)}\n`;
  // No UTF-16 unit takes more than three bytes (RFC 3629), so most lines need no counting.
  if (line.length * 3 <= CONTROL_LINE_MAX) return line;
  const { length } = encoder.encode(line);
  if (length <= CONTROL_LINE_MAX) return line;
  throw mismatch("E_CONTROL", `${message.type} message`, `${length} bytes`, `at most ${CONTROL_LINE_MAX}`);
}

/** Room for the other fields of an exit message. */
const LAST_WORDS_MAX = CONTROL_LINE_MAX - 1024;

function fitLastWords(words: readonly string[]): string[] {
  const kept: string[] = [];
  let left = LAST_WORDS_MAX;
  for (const word of words.toReversed()) {
    const [start = ""] = splitLogText(word);
    left -= encoder.encode(JSON.stringify(start)).length + 1;
    if (left < 0) break;
    kept.unshift(start);
  }
  return kept;
}

/** Cut a text into pieces of at most LOG_TEXT_MAX bytes of JSON, between characters. The empty text is one piece. */
export function splitLogText(text: string): string[] {
  const pieces: string[] = [];
  let start = 0;
  let bytes = 0;
  let position = 0;
  for (const character of text) {
    const size = escapedSize(character.codePointAt(0) as number);
    if (bytes + size > LOG_TEXT_MAX) {
      pieces.push(text.slice(start, position));
      start = position;
      bytes = 0;
    }
    bytes += size;
    position += character.length;
  }
  return [...pieces, text.slice(start)];
}

/** UTF-8 bytes of a code point in the JSON that ECMA-262 §25.5.2.3 (QuoteJSONString) makes of it. */
function escapedSize(code: number): number {
  if (code === 0x22 || code === 0x5c) return 2;
  if (code < 0x20) return [0x08, 0x09, 0x0a, 0x0c, 0x0d].includes(code) ? 2 : 6;
  if (code < 0x80) return 1;
  if (code < 0x800) return 2;
  if (code >= 0xd800 && code <= 0xdfff) return 6;
  return code < 0x10000 ? 3 : 4;
}

/**
 * Cuts a stream into lines and hands their messages on, as they come. It holds at most one unfinished line.
 * `read` is `readEnclaveMessage` or `readParentMessage`.
 */
export class MessageDecoder<T> {
  readonly #read: (line: JsonNode) => T | undefined;
  readonly #onMessage: (message: T) => void;
  readonly #line = new Uint8Array(CONTROL_LINE_MAX);
  #length = 0;
  #failed: CloisterError | undefined;

  constructor(read: (line: JsonNode) => T | undefined, onMessage: (message: T) => void) {
    this.#read = read;
    this.#onMessage = onMessage;
  }

  /**
   * More bytes, in pieces of any size. Throws E_CONTROL for a line that is too long, not JSON, or a known message with
   * a wrong field; whatever preceded it has been handed on, and every later call throws the same.
   */
  push(chunk: Uint8Array): void {
    if (this.#failed) throw this.#failed;
    try {
      this.#split(chunk);
    } catch (error) {
      if (error instanceof CloisterError) this.#failed = error;
      throw error;
    }
  }

  #split(chunk: Uint8Array): void {
    let start = 0;
    for (let end = chunk.indexOf(0x0a); end >= 0; end = chunk.indexOf(0x0a, start)) {
      this.#append(chunk.subarray(start, end));
      start = end + 1;
      const line = this.#line.subarray(0, this.#length);
      this.#length = 0;
      const message = this.#read(JsonNode.parse("E_CONTROL", "control message", line));
      if (message !== undefined) this.#onMessage(message);
    }
    this.#append(chunk.subarray(start));
  }

  #append(piece: Uint8Array): void {
    // The newline that must still come counts too.
    if (this.#length + piece.length >= CONTROL_LINE_MAX) {
      throw mismatch("E_CONTROL", "control message", "a longer line", `at most ${CONTROL_LINE_MAX} bytes`);
    }
    this.#line.set(piece, this.#length);
    this.#length += piece.length;
  }
}

/** A line from the enclave; undefined if its type is unknown. Throws E_CONTROL, naming the field. */
export function readEnclaveMessage(line: JsonNode): EnclaveMessage | undefined {
  const type = line.get("type").string();
  switch (type) {
    case "hello": {
      line.get("protocol").integer(1, 1);
      return { type, protocol: 1, node: line.get("node").string(), name: line.get("name").string() };
    }
    case "phase":
      return { type, phase: line.get("phase").choice(PHASES), uptimeMs: line.get("uptimeMs").milliseconds() };
    case "ready": {
      const ports = line.get("ports").items();
      return {
        type,
        uptimeMs: line.get("uptimeMs").milliseconds(),
        ports: ports.map((port) => port.integer(1, PORT_MAX)),
      };
    }
    case "log":
      return readLog(line);
    case "stats":
      return { type, stats: readStats(line.get("stats")) };
    case "clock":
      return { type, sentMs: line.get("sentMs").milliseconds() };
    case "exit": {
      const lastWords = line.get("lastWords").items();
      return {
        type,
        status: line.get("status").integer(0, 255),
        reason: line.get("reason").choice(EXIT_REASONS),
        lastWords: lastWords.map((word) => word.string()),
      };
    }
    default:
      return undefined;
  }
}

function readLog(line: JsonNode): EnclaveMessage {
  const dropped = line.get("dropped");
  const level = line.get("level");
  return {
    type: "log",
    time: line.get("time").milliseconds(),
    source: line.get("source").choice(LOG_SOURCES),
    ...(level.present && { level: level.choice(LOG_LEVELS) }),
    text: line.get("text").string(),
    ...(dropped.present && { dropped: dropped.integer(0, Number.MAX_SAFE_INTEGER) }),
  };
}

/** A line from the parent; undefined if its type is unknown. Throws E_CONTROL, naming the field. */
export function readParentMessage(line: JsonNode): ParentMessage | undefined {
  const type = line.get("type").string();
  switch (type) {
    case "shutdown":
      return { type, deadlineMs: line.get("deadlineMs").milliseconds() };
    case "time":
      return {
        type,
        unixMs: line.get("unixMs").milliseconds(),
        sentMs: line.get("sentMs").milliseconds(),
      };
    case "bye":
      return { type };
    default:
      return undefined;
  }
}
