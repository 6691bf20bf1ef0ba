/** A template becomes a project: whole under its name, or not at all. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { Failure } from "./failure.ts";
import type { Manager, Template } from "./options.ts";

export interface Project {
  /** Absolute. */
  readonly directory: string;
  readonly name: string;
  readonly template: Template;
  readonly manager: Manager;
  /** What package.json says for `cloister`; undefined: what the template says. */
  readonly cloister: string | undefined;
}

/** npm leaves files of this name out of packages, or renames them. */
const GITIGNORE = { stored: "_gitignore", name: ".gitignore" } as const;

/**
 * What a manager needs to install at all.
 * pnpm ≥ 10.3 fails while a dependency's install script is neither allowed nor refused: https://pnpm.io/settings/build.
 * Yarn ≥ 2 would keep the packages in zip files, and Node itself is one of them: https://yarnpkg.com/features/linkers.
 */
const MANAGER_FILES: Partial<Record<Manager, { readonly name: string; readonly text: string }>> = {
  pnpm: { name: "pnpm-workspace.yaml", text: "allowBuilds:\n  esbuild: false\n" },
  yarn: { name: ".yarnrc.yml", text: "nodeLinker: node-modules\n" },
};

/** Throws Failure unless the directory is absent, or has nothing in it but an empty repository's .git. */
export function checkDirectory(directory: string): void {
  const stat = statSync(directory, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isDirectory()) {
    throw new Failure(`${directory}: got a file, expected a directory or nothing`, "Choose another name.");
  }
  const entries = readdirSync(directory).filter((name) => name !== ".git");
  if (entries.length === 0) return;
  const shown = entries.slice(0, 3).join(", ") + (entries.length > 3 ? ", …" : "");
  throw new Failure(
    `${directory}: got a directory with ${shown}, expected an empty one`,
    "Choose another name, or empty it first: nothing was written.",
  );
}

/** Write the project. Throws Failure, with nothing of it left. */
export function scaffold(templates: string, project: Project): void {
  checkDirectory(project.directory);
  const files = readTemplate(join(templates, project.template), project);
  try {
    if (existsSync(project.directory)) fill(project.directory, files);
    else make(project.directory, files);
  } catch (error) {
    throw new Failure(
      `${project.directory}: ${(error as Error).message}`,
      "Make room, or choose a directory that you may write to: nothing was written.",
    );
  }
}

type Files = ReadonlyMap<string, string>;

/** A new directory appears with all its files at once. */
function make(directory: string, files: Files): void {
  const parent = dirname(directory);
  const firstMade = mkdirSync(parent, { recursive: true });
  try {
    staged(parent, files, (staging) => {
      // mkdtemp makes it private.
      chmodSync(staging, 0o777 & ~process.umask());
      renameSync(staging, directory);
    });
  } catch (error) {
    if (firstMade !== undefined) rmSync(firstMade, { recursive: true, force: true });
    throw error;
  }
}

/** An empty directory may be the shell's own, so it stays the same one: entries are moved in. */
function fill(directory: string, files: Files): void {
  staged(directory, files, (staging) => {
    for (const entry of readdirSync(staging)) renameSync(join(staging, entry), join(directory, entry));
    rmdirSync(staging);
  });
}

function staged(parent: string, files: Files, finish: (staging: string) => void): void {
  const staging = mkdtempSync(join(parent, ".create-cloister-"));
  try {
    for (const [path, text] of files) {
      mkdirSync(dirname(join(staging, path)), { recursive: true });
      writeFileSync(join(staging, path), text);
    }
    finish(staging);
  } catch (error) {
    rmSync(staging, { recursive: true, force: true });
    throw error;
  }
}

function readTemplate(folder: string, project: Project): Files {
  const files = filesBelow(folder).map((path): [string, string] => {
    const text = readFileSync(join(folder, path), "utf8");
    if (path === "package.json") return [path, personal(text, project)];
    return [path === GITIGNORE.stored ? GITIGNORE.name : path, text];
  });
  return new Map([...files, ...managerFiles(project)]);
}

/** Without `recursive`: `yarn dlx` runs this in a zip, where Dirent has no parentPath. */
function filesBelow(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory()
      ? filesBelow(join(folder, entry.name)).map((path) => join(entry.name, path))
      : [entry.name],
  );
}

function managerFiles({ manager, directory }: Project): [string, string][] {
  const file = MANAGER_FILES[manager];
  // A member of a pnpm workspace would become one of its own.
  if (file === undefined || (manager === "pnpm" && isBelow(dirname(directory), file.name))) return [];
  return [[file.name, file.text]];
}

function isBelow(directory: string, name: string): boolean {
  const parent = dirname(directory);
  return existsSync(join(directory, name)) || (parent !== directory && isBelow(parent, name));
}

function personal(text: string, { name, cloister }: Project): string {
  const manifest = JSON.parse(text) as { devDependencies: Record<string, string> };
  if (cloister !== undefined) manifest.devDependencies.cloister = cloister;
  return `${JSON.stringify({ ...manifest, name }, null, 2)}\n`;
}
