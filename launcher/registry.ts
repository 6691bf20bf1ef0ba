/**
 * The enclaves of a run directory: names claimed by one supervisor each, what dead ones left removed. Every change of who
 * is there happens under one lock, so that of two launchers with one name exactly one gets it.
 */
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { CloisterError } from "../format/errors.ts";
import { lockFile } from "../linux/lock.ts";
import { directoryError, SOCKET_PATH_MAX } from "./directory.ts";
import type { ProcessIdentity } from "./identity.ts";
import { type EnclaveRecord, isStale, type NewRecord, newRecord, readRecord, writeRecord } from "./record.ts";

/** An enclave's name begins with a letter or digit: ours do not. */
const LOCK = ".lock";
/** An enclave comes and goes by one rename, so that a claim or removal that was killed half way leaves no half one. */
const COMING = ".coming";
const GOING = ".going";
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/;

/** Files of an enclave. */
export const socketPath = (folder: string) => join(folder, "socket");
export const logPath = (folder: string) => join(folder, "log");
export const consolePath = (folder: string) => join(folder, "console");

/** Throws E_ENCLAVE_NAME. */
export function checkName(name: string): void {
  if (NAME.test(name)) return;
  const expected = "letters, digits, `_`, `.` and `-`, at most 64, the first a letter or digit";
  throw new CloisterError("E_ENCLAVE_NAME", `enclave name: got "${name}", expected ${expected}`);
}

/** A name like this one that `checkName` accepts. */
export function nameLike(text: string): string {
  const cleaned = text.replace(/[^A-Za-z0-9_.-]/g, "_").replace(/^[^A-Za-z0-9]+/, "");
  // Room for the number of a second one.
  return cleaned.slice(0, 60) || "enclave";
}

export interface Entry {
  readonly folder: string;
  readonly record: EnclaveRecord;
}

export class Registry {
  readonly directory: string;
  readonly #onStale: (record: EnclaveRecord) => void;

  /** `directory`: as `openRunDirectory` gives it. `onStale` hears of each enclave whose supervisor died. */
  constructor(directory: string, onStale: (record: EnclaveRecord) => void = () => {}) {
    this.directory = directory;
    this.#onStale = onStale;
  }

  /** All enclaves, ended ones too, the oldest first. Throws E_RUN_DIRECTORY. */
  list(): Entry[] {
    return this.#locked(() => this.#scan()).sort((a, b) => a.record.createdAt - b.record.createdAt);
  }

  /** By name or id. Throws E_NO_ENCLAVE, with the names that there are. */
  find(nameOrId: string): Entry {
    const entries = this.list();
    const found = entries.find(({ record }) => record.name === nameOrId || record.id === nameOrId);
    if (found !== undefined) return found;
    const names = entries.map(({ record }) => record.name).join(", ") || "none";
    throw new CloisterError(
      "E_NO_ENCLAVE",
      `${nameOrId}: got no enclave of that name or id, expected one of ${names}`,
    );
  }

  /** Undefined once it was removed. */
  read(name: string): EnclaveRecord | undefined {
    return readRecord(join(this.directory, name));
  }

  /**
   * Claim a name for this process. One that was asked for must be free (E_NAME_TAKEN); a default one gets a number as
   * nitro-cli's do: `app_1`. An ended enclave of the name gives way. Throws E_ENCLAVE_NAME, E_RUN_DIRECTORY.
   */
  claim(
    wanted: { readonly name: string; readonly isDefault: boolean },
    supervisor: ProcessIdentity,
    fields: NewRecord,
  ): Entry {
    return this.#locked(() => {
      const name = this.#freeName(wanted, this.#scan());
      checkName(name);
      const folder = join(this.directory, name);
      const socket = socketPath(folder);
      if (Buffer.byteLength(socket) > SOCKET_PATH_MAX) {
        const message = `${socket}: got ${Buffer.byteLength(socket)} bytes, expected at most ${SOCKET_PATH_MAX}`;
        throw new CloisterError("E_RUN_DIRECTORY", message, {
          fix: "Name a shorter path in CLOISTER_RUN_DIR.",
        });
      }
      if (readRecord(folder) !== undefined) this.#remove(folder);
      const record = newRecord(name, supervisor, fields);
      const coming = join(this.directory, COMING);
      try {
        mkdirSync(coming, { mode: 0o700 });
        writeRecord(coming, record);
        renameSync(coming, folder);
      } catch (error) {
        erase(coming);
        throw error;
      }
      return { folder, record };
    });
  }

  /** Remove what is left of an enclave that `accept`s to be removed. Returns whether it was there and did. */
  remove(name: string, accept: (record: EnclaveRecord) => boolean): boolean {
    if (!existsSync(this.directory)) return false;
    return this.#locked(() => {
      const folder = join(this.directory, name);
      const record = readRecord(folder);
      if (record === undefined || !accept(record)) return false;
      this.#remove(folder);
      return true;
    });
  }

  #remove(folder: string): void {
    const going = join(this.directory, GOING);
    renameSync(folder, going);
    erase(going);
  }

  #freeName(
    wanted: { readonly name: string; readonly isDefault: boolean },
    entries: readonly Entry[],
  ): string {
    const taken = new Map(
      entries.filter(({ record }) => record.state !== "ended").map(({ record }) => [record.name, record]),
    );
    const holder = taken.get(wanted.name);
    if (holder === undefined) return wanted.name;
    if (!wanted.isDefault) {
      const message = `${wanted.name}: got a running enclave (supervisor ${holder.supervisor.pid}), expected the name free`;
      throw new CloisterError("E_NAME_TAKEN", message);
    }
    let number = 1;
    while (taken.has(`${wanted.name}_${number}`)) number++;
    return `${wanted.name}_${number}`;
  }

  /** Under the lock: what is there, less what dead supervisors left, which is removed. */
  #scan(): Entry[] {
    for (const name of [COMING, GOING]) erase(join(this.directory, name));
    return readdirSync(this.directory)
      .filter((name) => NAME.test(name))
      .flatMap((name) => {
        const folder = join(this.directory, name);
        const record = readRecord(folder);
        // Not ours: whoever names a directory of other things as run directory keeps them.
        if (record === undefined) return [];
        if (!isStale(record)) return { folder, record };
        this.#remove(folder);
        this.#onStale(record);
        return [];
      });
  }

  #locked<T>(use: () => T): T {
    try {
      const fd = openSync(join(this.directory, LOCK), "a", 0o600);
      try {
        lockFile(fd);
        return use();
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      throw directoryError(this.directory, error);
    }
  }
}

function erase(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
}
