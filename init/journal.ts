/** What the app and init say: output becomes lines, lines become records, censored before anything else sees them. */
import { LOG_TEXT_MAX, splitLogText } from "../format/control.ts";
import { jsonOfLine, type LogLevel, type LogSource, levelOfJson, levelOfSource } from "../format/log.ts";
import { Censor } from "./censor.ts";
import { LastWords, type Line, LineCutter, type RecordRing } from "./records.ts";

/** Longest JSON text that is not cut: with its quotes escaped it fits a control message. */
const JSON_MAX = LOG_TEXT_MAX;

export interface JournalOptions {
  readonly ring: RecordRing;
  /** Rules of format/redact.ts. */
  readonly redact: readonly string[];
  /** Every line of a record that the console may show. */
  readonly onLine: (source: LogSource, text: string) => void;
}

export interface JournalOutput {
  push(chunk: Uint8Array): void;
  /** The stream ended. */
  end(): void;
}

export class Journal {
  /** The last lines of standard error. */
  readonly lastWords = new LastWords();
  readonly #options: JournalOptions;
  readonly #censor: Censor;

  constructor(options: JournalOptions) {
    this.#options = options;
    this.#censor = new Censor(options.redact);
  }

  /** A byte stream of the app's. */
  output(source: "stdout" | "stderr"): JournalOutput {
    return new Output((lines) => this.#record(source, lines));
  }

  /** A line of init's own. */
  say(text: string, level: LogLevel = "info"): void {
    this.#record("init", [{ text, isPart: false }], level);
  }

  #record(source: LogSource, lines: readonly Line[], level?: LogLevel): void {
    const time = Date.now();
    for (const text of this.#censor.texts(lines)) {
      const json = jsonOfLine(text);
      const own = level ?? (json && levelOfJson(json)) ?? levelOfSource(source);
      const isWhole = json !== undefined && text.length <= JSON_MAX;
      for (const piece of isWhole ? [text] : pieces(text)) {
        this.#options.ring.push({ type: "log", time, source, level: own, text: piece });
        if (source === "stderr") this.lastWords.push(piece);
        this.#options.onLine(source, piece);
      }
    }
  }
}

/** No character takes more than six bytes of JSON, so most lines need no counting. */
function pieces(text: string): string[] {
  return text.length * 6 <= LOG_TEXT_MAX ? [text] : splitLogText(text);
}

/** Takes one stream in chunks of any size. */
class Output implements JournalOutput {
  readonly #cutter: LineCutter;
  readonly #record: (lines: readonly Line[]) => void;
  #lines: Line[] = [];

  constructor(record: (lines: readonly Line[]) => void) {
    this.#cutter = new LineCutter((line) => this.#lines.push(line));
    this.#record = record;
  }

  push(chunk: Uint8Array): void {
    this.#cutter.push(chunk);
    this.#flush();
  }

  end(): void {
    this.#cutter.end();
    this.#flush();
  }

  #flush(): void {
    const lines = this.#lines;
    this.#lines = [];
    if (lines.length > 0) this.#record(lines);
  }
}
