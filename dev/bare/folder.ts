/**
 * The private folder of one bare enclave, mode 0700: its app, and one Unix socket for each vsock port. Names are short
 * because a socket's path has 104 bytes at most (sockaddr_un on macOS).
 */
import { chmodSync, mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { decodeCpio } from "../../format/archive.ts";
import { S_IFREG } from "../../format/cpio.ts";
import type { Programs } from "./program.ts";

/** Root of the enclave's own files, as in the image; `app`, `root` and `tmp` lie in it. */
export interface Folder extends Disposable {
  readonly path: string;
}

export interface Contents {
  /** What `encodeApp` makes of the app. */
  readonly archives: readonly Uint8Array[];
  /** Where the modules in its source maps lie. */
  readonly sources: string;
}

/** Without an app. Throws Node's file system errors, with nothing left behind. */
export function makeFolder(programs: Programs): Folder {
  const path = mkdtempSync(join(realpathSync(tmpdir()), "cloister-"));
  const remove = () => rmSync(path, { recursive: true, force: true });
  try {
    for (const name of ["root", "tmp"]) mkdirSync(join(path, name));
    writeFileSync(mainFile(path), programs.main);
    writeFileSync(preloadFile(path), programs.preload);
  } catch (error) {
    remove();
    throw error;
  }
  return { path, [Symbol.dispose]: remove };
}

/** Throws Node's file system errors. */
export function placeApp(folder: string, { archives, sources }: Contents): void {
  for (const archive of archives) unpack(archive, folder, sources);
}

/** A socket of the parent that the enclave connects to. */
export function parentSocket(folder: string, port: number): string {
  return join(folder, `p${port}`);
}

/** A socket of the enclave that the parent connects to. */
export function enclaveSocket(folder: string, port: number): string {
  return join(folder, `e${port}`);
}

/** A file with the real port of the server that listens on this TCP port of the enclave. */
export function serverFile(folder: string, port: number): string {
  return join(folder, `t${port}`);
}

/** What runs in place of an enclave. */
export function mainFile(folder: string): string {
  return join(folder, "main.mjs");
}

/** What worker threads and child processes load first. */
export function preloadFile(folder: string): string {
  return join(folder, "preload.cjs");
}

export function appDirectory(folder: string): string {
  return join(folder, "app");
}

/** S_IFMT of inode(7). */
const TYPE_MASK = 0o170000;

function unpack(archive: Uint8Array, folder: string, sources: string): void {
  for (const { path, mode, data } of decodeCpio(archive)) {
    const place = join(folder, path);
    if ((mode & TYPE_MASK) !== S_IFREG) mkdirSync(place, { recursive: true });
    else {
      mkdirSync(dirname(place), { recursive: true });
      writeFileSync(place, isOwnMap(path) ? relocated(Buffer.concat(data), sources) : Buffer.concat(data));
      chmodSync(place, mode & 0o777);
    }
  }
}

function isOwnMap(path: string): boolean {
  return path.endsWith(".map") && !path.includes("node_modules/");
}

/** Stack traces and a debugger find the app's modules where their author edits them. */
function relocated(map: Uint8Array, sources: string): string {
  const json = JSON.parse(Buffer.from(map).toString("utf8")) as object;
  return JSON.stringify({ ...json, sourceRoot: `${pathToFileURL(sources).href}/` });
}
