/** What a verb is: one literal from which parsing, `--help` and the reference are made. */
import { parseArgs } from "node:util";
import { CloisterError } from "../format/errors.ts";

export interface Option {
  readonly type: "boolean" | "string";
  readonly short?: string;
  readonly multiple?: boolean;
  /** Placeholder of the value in the help text: `--memory SIZE`. */
  readonly value?: string;
  /** Words that a shell offers for the value. */
  readonly choices?: readonly string[];
  readonly description: string;
}

export type Options = Readonly<Record<string, Option>>;

export type Values<O extends Options> = {
  readonly [K in keyof O]?: O[K]["type"] extends "boolean"
    ? boolean
    : O[K]["multiple"] extends true
      ? string[]
      : string;
};

export type Terminal = NodeJS.ReadableStream & { isTTY?: boolean; setRawMode?(isRaw: boolean): unknown };

/** The process's edges, injected so that a test can call a verb as a function. */
export interface Io {
  readonly stdout: NodeJS.WritableStream & { isTTY?: boolean };
  readonly stderr: NodeJS.WritableStream & { isTTY?: boolean };
  /** Keys are read where it is a terminal. */
  readonly stdin?: Terminal;
  readonly env: NodeJS.ProcessEnv;
  readonly directory: string;
  /** Aborted by the first SIGINT or SIGTERM. */
  readonly signal: AbortSignal;
}

/** Its summary is in the table of main.ts, which lists verbs without loading them. */
export interface Command<O extends Options = Options> {
  readonly name: string;
  /** Operands as shown in the usage line: `[ENTRY]`, `FILE`. */
  readonly operands: string;
  readonly options: O;
  readonly examples: readonly string[];
  /** Returns the exit status. */
  run(io: Io, operands: readonly string[], values: Values<O>): Promise<number>;
}

/** Keeps each option's type while checking the literal. */
export function command<const O extends Options>(definition: Command<O>): Command<O> {
  return definition;
}

/** What `--help` and the reference show of a verb. */
export type Shown = Omit<Command, "run">;

/** A row of the dispatcher's table. */
export interface Verb {
  readonly name: string;
  /** A clause without its full stop. */
  readonly summary: string;
  load(): Promise<Shown>;
  /** Parse the words behind the verb and run it; returns the exit status. */
  run(io: Io, words: readonly string[]): Promise<number>;
}

/** A verb whose module is imported when it is needed. */
export function verb<O extends Options>(
  name: string,
  summary: string,
  load: () => Promise<Command<O>>,
): Verb {
  return {
    name,
    summary,
    load,
    run: async (io, words) => runCommand(await load(), summary, words, io),
  };
}

/** Of verbs that say more than what they are asked for. */
export const QUIET = {
  type: "boolean",
  short: "q",
  description: "No progress and no remarks: only results, and errors",
} as const satisfies Option;

/** Of verbs whose results are JSON in any case. */
export const ALWAYS_JSON = {
  type: "boolean",
  description: "Errors as JSON too, as the result always is",
} as const satisfies Option;

export const HELP: Options = { help: { type: "boolean", short: "h", description: "Show this text" } };

async function runCommand<O extends Options>(
  definition: Command<O>,
  summary: string,
  words: readonly string[],
  io: Io,
): Promise<number> {
  const parsed = parse(definition, words);
  if (parsed.values.help === true) {
    io.stdout.write(helpText(definition, summary));
    return 0;
  }
  const { help: _, ...values } = parsed.values;
  return definition.run(io, parsed.positionals, values as Values<O>);
}

function parse<O extends Options>(definition: Command<O>, words: readonly string[]) {
  const options = Object.fromEntries(
    Object.entries({ ...definition.options, ...HELP }).map(([name, { type, short, multiple }]) => [
      name,
      { type, ...(short === undefined ? {} : { short }), ...(multiple === undefined ? {} : { multiple }) },
    ]),
  );
  try {
    return parseArgs({ args: [...words], options, allowPositionals: true, strict: true });
  } catch (error) {
    const message = error instanceof Error ? (error.message.split(". ")[0] ?? error.message) : String(error);
    throw new CloisterError("E_USAGE", `cloister ${definition.name}: ${message}`, {
      fix: `cloister ${definition.name} --help lists what it takes`,
    });
  }
}

/** The text of `cloister VERB --help`. */
export function helpText(definition: Shown, summary: string): string {
  const rows = Object.entries({ ...definition.options, ...HELP }).map(([name, option]) => {
    const value = option.type === "string" ? ` ${option.value ?? "VALUE"}` : "";
    const short = option.short === undefined ? "    " : `-${option.short}, `;
    return [`  ${short}--${name}${value}`, option.description] as const;
  });
  const width = Math.max(...rows.map(([left]) => left.length)) + 2;
  return [
    `${summary}.`,
    "",
    `Usage: cloister ${definition.name} [OPTIONS] ${definition.operands}`.trimEnd(),
    "",
    "Options:",
    ...rows.map(([left, right]) => left.padEnd(width) + right),
    "",
    "Examples:",
    ...definition.examples.map((example) => `  ${example}`),
    "",
  ].join("\n");
}

/** The only operand of a verb that takes exactly one. */
export function oneOperand(definition: { name: string }, operands: readonly string[], what: string): string {
  const [operand, extra] = operands;
  if (operand === undefined) {
    throw new CloisterError("E_USAGE", `cloister ${definition.name}: found no ${what}, expected one`);
  }
  if (extra !== undefined) {
    throw new CloisterError(
      "E_USAGE",
      `cloister ${definition.name}: found "${extra}" after "${operand}", expected one ${what}`,
    );
  }
  return operand;
}
