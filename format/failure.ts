/**
 * The error class of the catalogue in errors.ts. Apart from it, so that what runs in browsers does not carry every text
 * that the command line may ever show.
 */
import type { ErrorCode } from "./errors.ts";

export interface CloisterErrorOptions {
  /** What to do in this very case, where it can be said better than the catalogue does. */
  readonly fix?: string;
  /** More lines to show below the message: a bundler's frame, the console's last lines. */
  readonly details?: string;
  readonly cause?: unknown;
  /** What was found and what should have been there, for programs; the message says both. */
  readonly got?: string;
  readonly expected?: string;
}

/** An error whose fault is not ours: shown as code, message, details and fix, never as a stack trace. */
export class CloisterError extends Error {
  readonly code: ErrorCode;
  /** undefined: what the catalogue says for this code. */
  declare readonly fix: string | undefined;
  declare readonly details: string | undefined;
  declare readonly got: string | undefined;
  declare readonly expected: string | undefined;

  constructor(code: ErrorCode, message: string, options: CloisterErrorOptions = {}) {
    const { cause, ...texts } = options;
    super(message, cause === undefined ? undefined : { cause });
    this.name = "CloisterError";
    this.code = code;
    // Only those there are: Node shows an error's own fields where nobody catches it.
    Object.assign(this, texts);
  }
}

/** The error of a value that is not what it must be: where it was found, what it is, what it should be. */
export function mismatch(
  code: ErrorCode,
  where: string,
  got: string | number | bigint,
  expected: string,
): CloisterError {
  return new CloisterError(code, `${where}: got ${got}, expected ${expected}`, { got: `${got}`, expected });
}

/** A byte offset as messages name it. */
export function at(offset: number): string {
  return `offset ${offset} (0x${offset.toString(16)})`;
}

/** Text of the other side as messages show it: short, and printable ASCII, since a terminal obeys what is not. */
export function quote(text: string): string {
  const short = text.length > 80 ? `${text.slice(0, 80)}…` : text;
  return JSON.stringify(short).replace(
    /[^ -~…]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
