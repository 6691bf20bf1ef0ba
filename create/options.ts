/** The command line, and what of it is still to be asked. */
import { parseArgs } from "node:util";
import { Failure } from "./failure.ts";

/** Folders of templates/, in the order they are offered. */
export const TEMPLATES = {
  fetch: "a fetch handler, as in Workers, Bun and Deno",
  hono: "the same with Hono's routes",
  express: "an ordinary Express server",
  bare: "an ordinary Node program with node:http, no packages",
  signer: "a key born in the enclave that signs; a client that verifies the enclave first",
} as const;
export type Template = keyof typeof TEMPLATES;

export const MANAGERS = ["npm", "pnpm", "yarn", "bun"] as const;
export type Manager = (typeof MANAGERS)[number];

/** undefined: to be asked, or to have its default. */
export interface Options {
  readonly directory: string | undefined;
  readonly name: string | undefined;
  readonly template: Template | undefined;
  readonly manager: Manager | undefined;
  readonly install: boolean | undefined;
  readonly yes: boolean;
  /** Version range, folder or tarball of the package `cloister`. */
  readonly cloister: string | undefined;
  readonly help: boolean;
  readonly version: boolean;
}

const FLAGS = {
  template: { type: "string", short: "t" },
  name: { type: "string" },
  manager: { type: "string" },
  install: { type: "boolean" },
  "no-install": { type: "boolean" },
  yes: { type: "boolean", short: "y" },
  cloister: { type: "string" },
  help: { type: "boolean", short: "h" },
  version: { type: "boolean", short: "V" },
} as const;

export const HELP = `Usage: npm create cloister [DIRECTORY] -- [OPTIONS]

Writes a TypeScript app for an AWS Nitro Enclave into a new or empty directory.

Options:
  -t, --template NAME  ${Object.keys(TEMPLATES).join(", ")} (default: fetch)
      --name NAME      The package's and the enclave's name (default: the directory's)
      --manager NAME   ${MANAGERS.join(", ")} (default: the one that runs this)
      --install        Install the packages (default), or --no-install
  -y, --yes            Ask nothing: defaults for what no option says
      --cloister SPEC  Another cloister than this release's: a version, a tarball, a directory
  -V, --version        The version of create-cloister
  -h, --help           Show this text

Templates:
${Object.entries(TEMPLATES)
  .map(([name, text]) => `  ${name.padEnd(9)}${text}`)
  .join("\n")}
`;

const USAGE = "`npm create cloister -- --help` lists what it takes.";

/** Throws Failure with status 2. */
export function parseOptions(words: readonly string[]): Options {
  const { values, positionals } = parse(words);
  const [directory, extra] = positionals;
  if (extra !== undefined) {
    throw new Failure(`found "${extra}" after "${directory}", expected one directory`, USAGE, 2);
  }
  if (values.install === true && values["no-install"] === true) {
    throw new Failure("found --install and --no-install, expected one of them", USAGE, 2);
  }
  return {
    directory,
    name: values.name === undefined ? undefined : checkName("--name", values.name),
    template: choice("--template", values.template, Object.keys(TEMPLATES) as Template[]),
    manager: choice("--manager", values.manager, MANAGERS),
    install: values["no-install"] === true ? false : values.install,
    yes: values.yes === true,
    cloister: values.cloister,
    help: values.help === true,
    version: values.version === true,
  };
}

function parse(words: readonly string[]) {
  try {
    return parseArgs({ args: [...words], options: FLAGS, allowPositionals: true });
  } catch (error) {
    const message = error instanceof Error ? (error.message.split(". ")[0] ?? "") : String(error);
    throw new Failure(message, USAGE, 2);
  }
}

function choice<T extends string>(
  flag: string,
  value: string | undefined,
  known: readonly T[],
): T | undefined {
  const found = known.find((name) => name === value);
  if (value === undefined || found !== undefined) return found;
  throw new Failure(`${flag}: got "${value}", expected one of ${known.join(", ")}`, USAGE, 2);
}

/** npm's rule for new names and cloister's for enclaves, both at once. */
const NAME = /^[a-z0-9][a-z0-9._-]{0,63}$/;
const NAME_EXPECTED = "1 to 64 lower-case letters, digits, '.', '_' or '-', beginning with a letter or digit";

/** Why it cannot be a name; undefined if it can. */
export function nameProblem(name: string): string | undefined {
  return NAME.test(name) ? undefined : `got "${name}", expected ${NAME_EXPECTED}`;
}

/** Throws Failure with a name that would do. */
export function checkName(what: string, name: string): string {
  const problem = nameProblem(name);
  if (problem === undefined) return name;
  const near = name
    .toLowerCase()
    .replace(/[^a-z0-9._-]+/g, "-")
    .replace(/^[^a-z0-9]+|-+$/g, "")
    .slice(0, 64);
  throw new Failure(`${what}: ${problem}`, `Say --name ${near || "my-app"}, or choose another directory.`, 2);
}
