/** What `cloister` alone says: what to do next in this folder, on this machine. */
import { type Dirent, existsSync, readdirSync, statSync } from "node:fs";
import { join, relative } from "node:path";
import { CloisterError } from "../format/errors.ts";
import { chooseRunDirectory } from "../launcher/directory.ts";
import { CONFIG_FILES, ENTRY_FILES } from "../packer/convention.ts";
import type { Io } from "./command.ts";
import { openRegistry } from "./order.ts";

const DEVICE = "/dev/nitro_enclaves";
/** Folders of which no file is the app's source. */
const FOREIGN = new Set(["node_modules", "dist", "coverage"]);
/** What an app is made from, and what is beside it: tests, declarations, bills of materials. */
const SOURCE = /\.(?:[cm]?[jt]sx?|json|html|sql|graphql|pem|wasm|node)$/;
const BESIDE = /\.(?:test|spec|d|cdx|spdx)\.\w+$/;
/** What is looked at, at most: the advice must be quick in a home directory too. */
const ENTRIES_MAX = 20_000;

export interface Surroundings {
  readonly directory: string;
  /** Is this an EC2 instance with enclaves enabled? */
  readonly isParent: boolean;
  /** Names of this user's running enclaves. */
  readonly running: readonly string[];
  /** How the user calls this program. */
  readonly program: string;
}

/** A fact, and the commands that follow from it with what they do. */
interface Advice {
  readonly fact: string;
  readonly steps: readonly (readonly [command: string, effect: string])[];
}

export function lookAround(io: Io): Surroundings {
  return {
    directory: io.directory,
    isParent: existsSync(DEVICE),
    running: runningNames(io),
    // Set by npm for what npx and `npm exec` start.
    program: io.env.npm_command === "exec" ? "npx cloister" : "cloister",
  };
}

function runningNames(io: Io): string[] {
  // Advice makes no directories.
  if (!existsSync(chooseRunDirectory(io.env, process.geteuid?.() ?? 0))) return [];
  try {
    const entries = openRegistry(io).list();
    return entries.filter(({ record }) => record.state !== "ended").map(({ record }) => record.name);
  } catch (error) {
    // E_RUN_DIRECTORY: whoever starts an enclave is told.
    if (error instanceof CloisterError) return [];
    throw error;
  }
}

/** Lines of text. */
export function nextSteps(around: Surroundings): string {
  const advice = [...aboutEnclaves(around), aboutFolder(around)];
  const width = Math.max(...advice.flatMap(({ steps }) => steps.map(([command]) => command.length))) + 2;
  return [
    ...advice.flatMap(({ fact, steps }) => [
      fact,
      ...steps.map(([command, effect]) => `  ${command.padEnd(width)}${effect}`),
      "",
    ]),
    `\`${around.program} --help\` lists all verbs.`,
    "",
  ].join("\n");
}

function aboutEnclaves({ running, program }: Surroundings): Advice[] {
  const [first] = running;
  if (first === undefined) return [];
  const fact =
    running.length === 1
      ? `The enclave ${first} is running.`
      : `${running.length} enclaves are running: ${running.join(", ")}.`;
  return [
    {
      fact,
      steps: [
        [`${program} logs -f ${first}`, "follow what it writes"],
        [`${program} stop ${first}`, "ask it to stop"],
      ],
    },
  ];
}

function aboutFolder(around: Surroundings): Advice {
  const { directory, program } = around;
  const source = newestSource(directory);
  const isProject = ["package.json", ...CONFIG_FILES, ...ENTRY_FILES].some((file) =>
    existsSync(join(directory, file)),
  );
  const image = newestImage(directory);
  if (image !== undefined && (source === undefined || !isProject || image.changedMs >= source.changedMs)) {
    return aboutImage(around, image.path);
  }
  if (!isProject) {
    return {
      fact: "There is no app in this folder.",
      steps: [["npm create cloister my-app", "make one, from a template"]],
    };
  }
  const fact =
    image === undefined
      ? "This folder has an app, and no image of it yet."
      : `${image.path} is older than ${source?.path}.`;
  return {
    fact,
    steps: [
      [`${program} dev`, "run it in a local enclave, and again whenever a file is saved"],
      [`${program} build`, "pack it into an EIF and print its measurements"],
    ],
  };
}

function aboutImage({ isParent, program }: Surroundings, path: string): Advice {
  const file = /^[\w./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;
  if (isParent) {
    return {
      fact: `${path} is up to date, and this machine can run enclaves.`,
      steps: [
        [`${program} doctor ${file}`, "check first that it fits here"],
        [`${program} run ${file} --publish 8080:8080`, "start it"],
      ],
    };
  }
  return {
    fact: `${path} is up to date. This machine has no ${DEVICE}: here it runs in the emulator.`,
    steps: [
      [`${program} run ${file} --emulator --publish 8080:8080`, "start it"],
      [`${program} describe ${file}`, "show its measurements"],
    ],
  };
}

interface Found {
  /** Relative to the folder. */
  readonly path: string;
  readonly changedMs: number;
}

function newestImage(directory: string): Found | undefined {
  const images = entriesOf(directory).filter(({ name }) => name.endsWith(".eif"));
  return newest(
    directory,
    images.map(({ name }) => join(directory, name)),
  );
}

/** Hidden files are none. */
function newestSource(directory: string): Found | undefined {
  const files: string[] = [];
  const folders = [directory];
  let left = ENTRIES_MAX;
  for (const folder of folders) {
    for (const entry of entriesOf(folder).slice(0, left)) {
      left--;
      if (entry.name.startsWith(".") || FOREIGN.has(entry.name)) continue;
      const path = join(folder, entry.name);
      if (entry.isDirectory()) folders.push(path);
      else if (entry.isFile() && SOURCE.test(entry.name) && !BESIDE.test(entry.name)) files.push(path);
    }
  }
  return newest(directory, files);
}

/** None where this user may not look, or where it is gone since. */
function entriesOf(folder: string): Dirent[] {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EACCES" || code === "ENOENT") return [];
    throw error;
  }
}

function newest(directory: string, files: readonly string[]): Found | undefined {
  let found: Found | undefined;
  for (const file of files) {
    // It may be gone since.
    const changedMs = statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;
    if (found === undefined || changedMs > found.changedMs)
      found = { path: relative(directory, file), changedMs };
  }
  return found;
}
