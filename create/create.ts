/** Words in, project out. */
import { readFileSync } from "node:fs";
import { basename, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { Failure } from "./failure.ts";
import { detectManager, install, quoted } from "./install.ts";
import { checkName, HELP, type Manager, nameProblem, type Options, parseOptions } from "./options.ts";
import { checkDirectory, type Project, scaffold } from "./scaffold.ts";

/** The process's edges. */
export interface Io {
  readonly stdout: { write(text: string): unknown };
  readonly stderr: { write(text: string): unknown };
  readonly env: NodeJS.ProcessEnv;
  readonly directory: string;
  /** Both standard input and output are a terminal. */
  readonly isTTY: boolean;
  /** Asks; loaded when there is somebody to ask. */
  readonly questions: () => Promise<Questions>;
}

export type Questions = typeof import("./question.ts");

/** Run `create-cloister` with these words. Never rejects for what the user did; returns the exit status. */
export async function create(words: readonly string[], io: Io): Promise<number> {
  try {
    const options = parseOptions(words);
    if (options.help) io.stdout.write(HELP);
    else if (options.version) io.stdout.write(`${readManifest().version}\n`);
    else await createProject(options, io);
    return 0;
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    io.stderr.write(`error: ${error.message}\n  fix: ${error.fix}\n`);
    return error.status;
  }
}

async function createProject(options: Options, io: Io): Promise<void> {
  const manager = options.manager ?? detectManager(io.env);
  const asks = io.isTTY && !options.yes && io.env.CI === undefined;
  const { project, installs } = asks
    ? await ask(options, manager, io)
    : { project: projectOf(options, manager, io, {}), installs: options.install ?? true };
  scaffold(fileURLToPath(new URL(templatesPath(), import.meta.url)), project);
  io.stdout.write(`Created ${project.directory} from the template ${project.template}.\n`);
  if (installs) install(manager, project.directory);
  io.stdout.write(nextSteps(project, manager, installs, io));
}

async function ask(options: Options, manager: Manager, io: Io) {
  const questions = await io.questions();
  questions.greet();
  const directory =
    options.directory ??
    (await questions.askDirectory((path) => failureOf(() => checkDirectory(resolve(io.directory, path)))));
  const base = basename(resolve(io.directory, directory));
  const name = options.name ?? (nameProblem(base) === undefined ? base : await questions.askName());
  // Before the other questions: they would be answered for nothing.
  checkDirectory(resolve(io.directory, directory));
  const template = options.template ?? (await questions.askTemplate());
  const installs = options.install ?? (await questions.askInstall(manager));
  return { project: projectOf(options, manager, io, { directory, name, template }), installs };
}

function failureOf(check: () => void): string | undefined {
  try {
    check();
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

type Answers = Partial<Pick<Project, "directory" | "name" | "template">>;

/** Answers, else options, else defaults. Throws Failure for a directory whose name is none. */
function projectOf(options: Options, manager: Manager, io: Io, answers: Answers): Project {
  const directory = resolve(io.directory, answers.directory ?? options.directory ?? "my-app");
  return {
    directory,
    name: answers.name ?? options.name ?? checkName("the directory's name", basename(directory)),
    template: answers.template ?? options.template ?? "fetch",
    manager,
    cloister: options.cloister,
  };
}

/** Beside the source, and beside dist/. */
function templatesPath(): string {
  return import.meta.url.endsWith(".ts") ? "templates" : "../templates";
}

function readManifest(): { readonly version: string } {
  const path = import.meta.url.endsWith(".ts") ? "package.json" : "../package.json";
  return JSON.parse(readFileSync(new URL(path, import.meta.url), "utf8"));
}

function nextSteps({ directory }: Project, manager: Manager, installed: boolean, io: Io): string {
  const path = relative(io.directory, directory);
  const run = manager === "bun" ? "bun run" : manager;
  const build = manager === "npm" ? "npm run build" : `${run} build`;
  const dev = manager === "npm" ? "npm run dev" : `${run} dev`;
  const rows = [
    ...(path === "" ? [] : [[`cd ${quoted(path)}`, ""]]),
    ...(installed ? [] : [[`${manager} install`, ""]]),
    [`${run} test`, "in plain Node, in a second"],
    [dev, "run it in the emulator, and again at every save"],
    [`${run} start`, "build it and boot that file: http://127.0.0.1:8080"],
    [build, "app.eif and its measurements"],
  ];
  const lines = rows.map(([command = "", what = ""]) => `  ${command.padEnd(16)} ${what}`.trimEnd());
  return `\nNext:\n${lines.join("\n")}\n`;
}
