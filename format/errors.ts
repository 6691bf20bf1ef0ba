/**
 * The catalogue of errors that users meet. `docs/errors.md` is generated from it; a message names where, what was
 * found and what was expected, the catalogue adds the cause and what to do.
 */
export interface ErrorEntry {
  readonly cause: string;
  readonly fix: string;
}

const catalogue = {
  E_USAGE: {
    cause: "The command line has a verb, option or value that cloister does not know.",
    fix: "Run `cloister --help` or `cloister VERB --help`.",
  },
  E_INTERNAL: {
    cause: "cloister itself went wrong: a bug.",
    fix: "Run again with CLOISTER_DEBUG=1 and report the stack trace it prints.",
  },
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof catalogue;
export const ERRORS: Readonly<Record<ErrorCode, ErrorEntry>> = catalogue;

export interface CloisterErrorOptions {
  /** What to do in this very case, where it can be said better than the catalogue does. */
  readonly fix?: string;
  /** More lines to show below the message: a bundler's frame, the console's last lines. */
  readonly details?: string;
  readonly cause?: unknown;
}

/** An error whose fault is not ours: shown as code, message, details and fix, never as a stack trace. */
export class CloisterError extends Error {
  readonly code: ErrorCode;
  readonly fix: string;
  readonly details: string | undefined;

  constructor(code: ErrorCode, message: string, options: CloisterErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "CloisterError";
    this.code = code;
    this.fix = options.fix ?? ERRORS[code].fix;
    this.details = options.details;
  }
}
