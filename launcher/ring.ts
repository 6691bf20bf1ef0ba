/**
 * A file of bounded size that keeps the latest bytes: an enclave may say as much as it likes. Two halves; a full one
 * becomes `.1` in place of the one before.
 */
import { closeSync, fstatSync, ftruncateSync, openSync, renameSync, rmSync, writeSync } from "node:fs";

/** Bytes of both halves together. */
const LIMIT = 2 << 20;

export class Ring {
  readonly #path: string;
  readonly #limit: number;
  #fd: number;
  #size = 0;

  /** Throws Node's file system errors. `limit`: bytes. */
  constructor(path: string, limit = LIMIT) {
    this.#path = path;
    this.#limit = limit;
    this.#fd = openSync(path, "a", 0o600);
    this.#size = fstatSync(this.#fd).size;
  }

  /** Append all of it; false where that cannot be kept, which does not end an enclave. */
  write(bytes: Uint8Array): boolean {
    try {
      if (this.#size > 0 && this.#size + bytes.length > this.#limit / 2) this.#rotate();
      const written = writeSync(this.#fd, bytes);
      if (written === bytes.length) {
        this.#size += written;
        return true;
      }
      ftruncateSync(this.#fd, this.#size);
    } catch (error) {
      // ENOENT: someone removed the directory.
      if (!isFull(error) && (error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
    return false;
  }

  #rotate(): void {
    renameSync(this.#path, `${this.#path}.1`);
    const next = openSync(this.#path, "a", 0o600);
    closeSync(this.#fd);
    this.#fd = next;
    this.#size = 0;
  }

  /** Give up what was kept, to make room for something that matters more. */
  clear(): void {
    rmSync(`${this.#path}.1`, { force: true });
    ftruncateSync(this.#fd, 0);
    this.#size = 0;
  }

  close(): void {
    closeSync(this.#fd);
  }
}

export function isFull(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ENOSPC" || code === "EDQUOT";
}
