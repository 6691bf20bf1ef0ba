/** How an error is shown: code, message, details, fix; as one JSON value where `--json` was asked for. */
import { styleText } from "node:util";
import { CloisterError, ERRORS, type ErrorCode } from "../format/errors.ts";
import type { Io } from "./command.ts";
import { printable } from "./printable.ts";

const EXIT_ERROR = 1;
const EXIT_USAGE = 2;
/** `run` and `wait` pass the app's status through, so its own failures use what Docker and env(1) use for theirs. */
const EXIT_RUN = 125;

/**
 * Print the error and return the exit status. `words` are the verb and what stands behind it. `hasAnswered`: standard
 * output has its one value already.
 */
export function reportError(error: unknown, words: readonly string[], io: Io, hasAnswered = false): number {
  const known = error instanceof CloisterError ? error : unexpected(error);
  const isJson = asksForJson(words);
  const { code, message, details } = known;
  const fix = known.fix ?? ERRORS[code].fix;
  if (isJson && !hasAnswered) {
    const value = { Error: { Code: code, Message: message, Fix: fix, Details: details } };
    io.stdout.write(`${JSON.stringify(value)}\n`);
  }
  if (isJson && words[0] === "run") {
    // Its standard error is JSON lines.
    io.stderr.write(`${JSON.stringify({ type: "error", code, message, fix, details })}\n`);
  } else io.stderr.write(errorText(known, io.stderr.isTTY === true && io.env.NO_COLOR === undefined));
  if (known.code === "E_INTERNAL" && io.env.CLOISTER_DEBUG !== undefined && error instanceof Error) {
    io.stderr.write(`${error.stack}\n`);
  }
  if (known.code === "E_USAGE") return EXIT_USAGE;
  return words[0] === "run" || words[0] === "wait" ? EXIT_RUN : EXIT_ERROR;
}

/** Behind `--` are the words of another program. */
function asksForJson(words: readonly string[]): boolean {
  const end = words.indexOf("--");
  return words.slice(0, end < 0 ? words.length : end).includes("--json");
}

function unexpected(error: unknown): CloisterError {
  const message = error instanceof Error ? error.message : String(error);
  return new CloisterError("E_INTERNAL", message, { cause: error });
}

/** As lines: code, message, details, cause, fix. */
export function errorText(error: CloisterError, colour: boolean): string {
  // The stream was looked at: by itself it would look at standard output, which may be a pipe.
  const paint = (style: "red" | "dim" | "bold", text: string) =>
    colour ? styleText(style, text, { validateStream: false }) : text;
  const lines = [`${paint("red", "error")} ${paint("bold", error.code)}: ${error.message}`];
  if (error.details !== undefined) {
    // What an enclave said last, for one: on a console lines end with CR LF.
    const details = error.details.trimEnd().split(/\r?\n/);
    lines.push(...details.map((line) => `  ${printable(line)}`));
  }
  const cause = causeOf(error.code);
  if (error.fix === undefined && cause !== "") lines.push(paint("dim", `  why: ${cause}`));
  lines.push(`  fix: ${error.fix ?? ERRORS[error.code].fix}`);
  return `${lines.join("\n")}\n`;
}

function causeOf(code: ErrorCode): string {
  return ERRORS[code].cause;
}
