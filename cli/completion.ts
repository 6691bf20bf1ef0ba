import { CloisterError } from "../format/errors.ts";
import { command, HELP, type Option, oneOperand, type Shown, type Verb } from "./command.ts";
import { VERBS } from "./main.ts";
import { bashScript, fishScript, zshScript } from "./shell.ts";

/** What may stand in a place of the command line. */
export type Kind =
  | { readonly type: "enclaves" | "files" | "folders" | "text" }
  | { readonly type: "words"; readonly words: readonly string[] };

export interface CompletedOption {
  readonly name: string;
  readonly short: string | undefined;
  readonly description: string;
  /** Its placeholder and what it may be; undefined for a switch. */
  readonly value: { readonly name: string; readonly kind: Kind } | undefined;
}

export interface CompletedVerb {
  readonly name: string;
  readonly summary: string;
  readonly options: readonly CompletedOption[];
  readonly operand: { readonly name: string; readonly kind: Kind };
}

const SHELLS = { bash: bashScript, zsh: zshScript, fish: fishScript } as const;

export const completion = command({
  name: "completion",
  operands: "bash|zsh|fish",
  options: {},
  examples: [
    "source <(cloister completion bash)",
    "cloister completion zsh > ~/.zfunc/_cloister",
    "cloister completion fish > ~/.config/fish/completions/cloister.fish",
  ],
  async run(io, operands) {
    const shell = oneOperand(completion, operands, "shell");
    if (!isShell(shell)) {
      throw new CloisterError("E_USAGE", `cloister completion: found "${shell}", expected bash, zsh or fish`);
    }
    io.stdout.write(SHELLS[shell](await Promise.all(VERBS.map(completedVerb))));
    return 0;
  },
});

function isShell(name: string): name is keyof typeof SHELLS {
  return Object.hasOwn(SHELLS, name);
}

async function completedVerb({ name, summary, load }: Verb): Promise<CompletedVerb> {
  const { options, operands }: Shown = await load();
  return {
    name,
    summary,
    options: Object.entries({ ...options, ...HELP }).map(([name, option]) => completedOption(name, option)),
    operand: { name: operands, kind: operandKind(operands) },
  };
}

function completedOption(name: string, option: Option): CompletedOption {
  const { type, short, value = "VALUE", description } = option;
  const kind = type === "string" ? { name: value, kind: valueKind(option) } : undefined;
  return { name, short, description, value: kind };
}

/** By the placeholder: `FILE`, `DIR`, `NAME|ID`, or a word as it is written, `on-failure[:MAX]`. */
function valueKind({ value = "", choices }: Option): Kind {
  const word = /^[a-z-]+/.exec(value)?.[0];
  const words = choices ?? (word === undefined ? [] : [word]);
  if (words.length > 0) return { type: "words", words };
  if (value === "DIR") return { type: "folders" };
  return operandKind(value);
}

/** By how the usage line shows it. */
function operandKind(operands: string): Kind {
  if (operands.includes("NAME|ID")) return { type: "enclaves" };
  if (/^[a-z]+(?:\|[a-z]+)+$/.test(operands)) return { type: "words", words: operands.split("|") };
  return { type: /FILE|eif|ENTRY|WORD/.test(operands) ? "files" : "text" };
}
