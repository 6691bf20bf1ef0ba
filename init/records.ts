/** Log records: lines cut from a byte stream, and the bounded ring in which they wait for the parent. */
import { type EnclaveMessage, LOG_TEXT_MAX, splitLogText } from "../format/control.ts";

export type LogRecord = Extract<EnclaveMessage, { type: "log" }>;

const NEWLINE = 0x0a;

/** Cuts a byte stream into lines without their newlines, and long lines into texts that fit a record. */
export class LineCutter {
  readonly #emit: (text: string) => void;
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #pending: Uint8Array = new Uint8Array(0);

  constructor(emit: (text: string) => void) {
    this.#emit = emit;
  }

  push(chunk: Uint8Array): void {
    let rest = chunk;
    for (let end = rest.indexOf(NEWLINE); end >= 0; end = rest.indexOf(NEWLINE)) {
      this.#line(this.#join(rest.subarray(0, end)));
      rest = rest.subarray(end + 1);
    }
    this.#pending = this.#cut(this.#join(rest));
  }

  /** The stream ended: what came after the last newline is a line too. */
  end(): void {
    if (this.#pending.length > 0) this.#line(this.#pending);
    this.#pending = new Uint8Array(0);
  }

  #join(tail: Uint8Array): Uint8Array {
    if (this.#pending.length === 0) return Uint8Array.from(tail);
    const joined = new Uint8Array(this.#pending.length + tail.length);
    joined.set(this.#pending);
    joined.set(tail, this.#pending.length);
    this.#pending = new Uint8Array(0);
    return joined;
  }

  #line(bytes: Uint8Array): void {
    this.#text(this.#cut(bytes));
  }

  /** Emit pieces while there is more than one record's worth; return the rest. */
  #cut(bytes: Uint8Array): Uint8Array {
    let rest = bytes;
    while (rest.length > LOG_TEXT_MAX) {
      const end = characterBoundary(rest, LOG_TEXT_MAX);
      this.#text(rest.subarray(0, end));
      rest = rest.subarray(end);
    }
    return rest;
  }

  #text(bytes: Uint8Array): void {
    const text = this.#decoder.decode(bytes);
    // No character takes more than six bytes of JSON, so most lines need no counting.
    if (text.length * 6 <= LOG_TEXT_MAX) this.#emit(text);
    else splitLogText(text).forEach(this.#emit);
  }
}

/** The last offset up to `limit` that does not lie inside a UTF-8 character (RFC 3629: at most 3 continuation bytes). */
function characterBoundary(bytes: Uint8Array, limit: number): number {
  for (let end = limit; end > limit - 4; end--) {
    if (((bytes[end] ?? 0) & 0xc0) !== 0x80) return end;
  }
  return limit; // Not UTF-8: any place will do.
}

/** A queue of records, bounded in bytes: the oldest go first, and the next one out says how many went. */
export class RecordRing {
  readonly #capacity: number;
  #records: LogRecord[] = [];
  #first = 0;
  #bytes = 0;
  #dropped = 0;

  /** `capacity`: memory for texts, bytes. */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  push(record: LogRecord): void {
    this.#records.push(record);
    this.#bytes += weight(record);
    while (this.#bytes > this.#capacity && this.#records.length - this.#first > 1) {
      this.#take();
      this.#dropped++;
    }
  }

  shift(): LogRecord | undefined {
    const record = this.#take();
    if (record === undefined || this.#dropped === 0) return record;
    const dropped = this.#dropped;
    this.#dropped = 0;
    return { ...record, dropped };
  }

  #take(): LogRecord | undefined {
    const record = this.#records[this.#first];
    if (record === undefined) return undefined;
    this.#bytes -= weight(record);
    this.#first++;
    // An array's shift() moves all that follow; dropping the spent half now and then does not.
    if (this.#first * 2 > this.#records.length) {
      this.#records = this.#records.slice(this.#first);
      this.#first = 0;
    }
    return record;
  }
}

/** Two bytes a character at most, and the object around it. */
function weight(record: LogRecord): number {
  return record.text.length * 2 + 100;
}

/** How many lines of stderr go with the exit report. */
const LAST_WORDS = 20;

/** The last lines of stderr. */
export class LastWords {
  readonly #lines: string[] = [];

  push(line: string): void {
    this.#lines.push(line);
    if (this.#lines.length > LAST_WORDS) this.#lines.shift();
  }

  lines(): readonly string[] {
    return this.#lines;
  }
}
