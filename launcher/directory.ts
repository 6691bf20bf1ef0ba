/**
 * The run directory: where the enclaves of one user are told of. It is private: whoever could write there could stop them,
 * whoever could read there could read their logs.
 */
import { lstatSync, mkdirSync, type Stats, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CloisterError } from "../format/errors.ts";

const PRIVATE = 0o700;
const OTHERS = 0o077;
/** sockaddr_un.sun_path (unix(7)), without its NUL. */
export const SOCKET_PATH_MAX = 107;

/**
 * $CLOISTER_RUN_DIR; else `cloister` in $XDG_RUNTIME_DIR, where that is this user's as it must be (after `su` it is
 * not); else /run/cloister for root; else one in the directory for temporary files.
 */
export function chooseRunDirectory(env: NodeJS.ProcessEnv, uid: number): string {
  const { CLOISTER_RUN_DIR: own, XDG_RUNTIME_DIR: session } = env;
  if (own !== undefined && own !== "") return own;
  if (session && statSync(session, { throwIfNoEntry: false })?.uid === uid) return join(session, "cloister");
  return uid === 0 ? "/run/cloister" : join(tmpdir(), `cloister-${uid}`);
}

/** The run directory's path, made where it is not there yet. Throws E_RUN_DIRECTORY: another user's, open to others. */
export function openRunDirectory(env: NodeJS.ProcessEnv = process.env): string {
  const uid = process.geteuid?.() ?? 0;
  const path = chooseRunDirectory(env, uid);
  const stat = makeDirectory(path);
  const wrong = (got: string, expected: string, fix: string) =>
    new CloisterError("E_RUN_DIRECTORY", `${path}: got ${got}, expected ${expected}`, { fix });
  const elsewhere = "Name another one in CLOISTER_RUN_DIR.";
  if (!stat.isDirectory()) throw wrong("no directory", "one", elsewhere);
  if (stat.uid !== uid) throw wrong(`user ${stat.uid}'s directory`, `user ${uid}'s`, elsewhere);
  const mode = stat.mode & 0o777;
  if ((mode & OTHERS) !== 0) {
    throw wrong(`mode ${mode.toString(8)}`, "700", `Close it to others: chmod 700 ${path}`);
  }
  return path;
}

function makeDirectory(path: string): Stats {
  try {
    mkdirSync(path, { recursive: true, mode: PRIVATE });
    // Not what a link leads to: in a directory that others write to it may be theirs.
    return lstatSync(path);
  } catch (error) {
    // EEXIST: a file, or a link that leads nowhere.
    throw directoryError(path, error);
  }
}

/** A failed operation in the run directory, as its user sees it. */
export function directoryError(path: string, error: unknown): CloisterError {
  if (error instanceof CloisterError) return error;
  const { code = String(error) } = error as NodeJS.ErrnoException;
  const fix =
    code === "ENOSPC" || code === "EDQUOT"
      ? "Make room there, or name another directory in CLOISTER_RUN_DIR."
      : "Name a directory of yours in CLOISTER_RUN_DIR.";
  const message = `${path}: got ${code}, expected to write there`;
  return new CloisterError("E_RUN_DIRECTORY", message, { fix, cause: error });
}
