/** A supervisor's own files: its record, the log and the console. */
import { type EnclaveRecord, writeRecord } from "./record.ts";
import { consolePath, type Entry, logPath, socketPath } from "./registry.ts";
import { isFull, Ring } from "./ring.ts";
import type { SupervisorEvent } from "./supervisor.ts";

/** A line of the log: an event, and when it came, Unix milliseconds. */
export type LogLine = SupervisorEvent & { readonly at: number };

export class Shelf implements Disposable {
  readonly socket: string;
  readonly #folder: string;
  readonly #log: Ring;
  readonly #console: Ring;
  #record: EnclaveRecord;
  /** Events since the last one that was kept. */
  #lost = 0;

  /** Throws Node's file system errors. */
  constructor({ folder, record }: Entry) {
    this.socket = socketPath(folder);
    this.#folder = folder;
    this.#record = record;
    this.#log = new Ring(logPath(folder));
    this.#console = new Ring(consolePath(folder));
  }

  get record(): EnclaveRecord {
    return this.#record;
  }

  /** Where the disk is full the logs make room: how it ended matters more than what it said. */
  update(changes: Partial<EnclaveRecord>): void {
    this.#record = { ...this.#record, ...changes };
    if (this.#write()) return;
    this.#log.clear();
    this.#console.clear();
    // Full of what is not ours: the next change is tried again, and this process knows.
    this.#write();
  }

  /** False where the disk is full. */
  #write(): boolean {
    try {
      writeRecord(this.#folder, this.#record);
    } catch (error) {
      if (isFull(error)) return false;
      // Someone removed the directory: the enclave runs on, and nobody can ask for it.
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
    return true;
  }

  log(event: SupervisorEvent): void {
    const at = Date.now();
    const lines: LogLine[] = [{ at, ...event }];
    if (this.#lost > 0) lines.unshift({ at, type: "lost", events: this.#lost });
    const isKept = this.#log.write(Buffer.from(lines.map((line) => `${JSON.stringify(line)}\n`).join("")));
    this.#lost = isKept ? 0 : this.#lost + 1;
  }

  console(chunk: Uint8Array): void {
    this.#console.write(chunk);
  }

  [Symbol.dispose](): void {
    this.#log.close();
    this.#console.close();
  }
}
