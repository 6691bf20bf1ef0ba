/** Throw-away projects: a table of files becomes a folder outside this repository, so that no node_modules of ours is near. */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { onTestFinished } from "vitest";
import { CloisterError } from "../../format/errors.ts";
import { type AppFile, bundleApp } from "../../packer/bundle.ts";
import { loadProject } from "../../packer/project.ts";

export type Files = Readonly<Record<string, string | Uint8Array>>;

/** Path of a folder with these files, removed after the test. */
export function folder(files: Files = {}): string {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), "cloister-packer-")));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  fill(directory, files);
  return directory;
}

export function fill(directory: string, files: Files): void {
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, path)), { recursive: true });
    writeFileSync(join(directory, path), content);
  }
}

/** package.json of a fake package, as a file's content. */
export function manifest(fields: object): string {
  return JSON.stringify({ version: "1.0.0", ...fields });
}

/** Bundle a project of these files. */
export async function bundled(files: Files): Promise<AppFile[]> {
  const { files: own, packages } = await bundleApp(await loadProject({ directory: folder(files) }));
  return [...own, ...packages];
}

export interface Run {
  readonly stdout: string;
  readonly stderr: string;
  readonly status: number | null;
}

/** Run main.mjs where nothing but these files is, as in the enclave. */
export function run(files: readonly AppFile[], options: readonly string[] = []): Run {
  const directory = folder(Object.fromEntries(files.map(({ path, data }) => [path, data])));
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    ["--enable-source-maps", ...options, "main.mjs"],
    { cwd: directory, encoding: "utf8" },
  );
  return { stdout, stderr: stderr.replaceAll(directory, "/app"), status };
}

/** Bundle and run: standard output, after making sure that the program ended well. */
export async function output(files: Files): Promise<string> {
  const { stdout, stderr, status } = run(await bundled(files));
  if (status !== 0) throw new Error(`exit status ${status}: ${stderr}`);
  return stdout;
}

/** The CloisterError that the work ends with; the folder's name is taken out of its texts. */
export async function failure(
  work: () => unknown,
): Promise<{ code: string; message: string; fix: string; details: string }> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof CloisterError)) throw error;
    const plain = (text: string) => text.replace(/\/\S*cloister-packer-\w+/g, "DIR");
    const { code, fix = "", details = "" } = error;
    return { code, message: plain(error.message), fix, details: plain(details) };
  }
  throw new Error("no failure");
}
