/** Log records: lines cut from a byte stream, and the bounded ring in which they wait for the parent. */
import { type EnclaveMessage, LOG_TEXT_MAX } from "../format/control.ts";

export type LogRecord = Extract<EnclaveMessage, { type: "log" }>;

export interface Line {
  readonly text: string;
  /** Of a line that is longer than LOG_TEXT_MAX bytes. */
  readonly isPart: boolean;
}

const NEWLINE = 0x0a;

/** Cuts a byte stream into lines without their newlines, and long lines into parts of at most LOG_TEXT_MAX bytes. */
export class LineCutter {
  readonly #emit: (line: Line) => void;
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  /** The line so far; one byte more than a text shows whether that byte begins a character. */
  readonly #line = new Uint8Array(LOG_TEXT_MAX + 1);
  #length = 0;
  /** Parts of this line were emitted. */
  #isCut = false;

  constructor(emit: (line: Line) => void) {
    this.#emit = emit;
  }

  push(chunk: Uint8Array): void {
    let rest = chunk;
    for (let end = rest.indexOf(NEWLINE); end >= 0; end = rest.indexOf(NEWLINE)) {
      this.#append(rest.subarray(0, end));
      this.#flush(this.#length);
      this.#isCut = false;
      rest = rest.subarray(end + 1);
    }
    this.#append(rest);
  }

  /** The stream ended: what came after the last newline is a line too. */
  end(): void {
    if (this.#length > 0) this.#flush(this.#length);
  }

  #append(bytes: Uint8Array): void {
    for (let rest = bytes; rest.length > 0; ) {
      const piece = rest.subarray(0, this.#line.length - this.#length);
      this.#line.set(piece, this.#length);
      this.#length += piece.length;
      rest = rest.subarray(piece.length);
      if (this.#length === this.#line.length) {
        this.#isCut = true;
        this.#flush(characterBoundary(this.#line, LOG_TEXT_MAX));
      }
    }
  }

  /** Emit the first `end` bytes. */
  #flush(end: number): void {
    const text = this.#decoder.decode(this.#line.subarray(0, end));
    this.#emit({ text, isPart: this.#isCut });
    this.#line.copyWithin(0, end, this.#length);
    this.#length -= end;
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
  #pushedTotal = 0;
  #droppedTotal = 0;

  /** `capacity`: memory for texts, bytes. */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** Records so far, and those of them that were dropped. */
  get totals(): { readonly pushed: number; readonly dropped: number } {
    return { pushed: this.#pushedTotal, dropped: this.#droppedTotal };
  }

  push(record: LogRecord): void {
    this.#pushedTotal++;
    this.#records.push(record);
    this.#bytes += weight(record);
    while (this.#bytes > this.#capacity && this.#records.length - this.#first > 1) {
      this.#take();
      this.#dropped++;
      this.#droppedTotal++;
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
