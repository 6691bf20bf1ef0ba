/** A process that has Node and our modules loaded and waits for its app, so that a save need not wait for Node. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import type { Writable } from "node:stream";
import { type Folder, mainFile, makeFolder } from "./folder.ts";
import { COMMANDS, type Order, TELLS } from "./order.ts";
import { loadPrograms } from "./program.ts";

export class Standby implements Disposable {
  readonly child: ChildProcess;
  /** Rejects where it could not be started. */
  readonly exited: Promise<unknown>;
  /** All that it said has been heard. */
  readonly closed: Promise<unknown>;
  readonly #folder: Folder;

  /** It waits for `begin`. */
  constructor(folder: Folder) {
    this.#folder = folder;
    const stdio: ("ignore" | "pipe")[] = ["ignore", "pipe", "pipe"];
    stdio[TELLS] = "pipe";
    stdio[COMMANDS] = "pipe";
    // A group of its own: a terminal's Ctrl-C is for the parent, and the whole group can be ended.
    this.child = spawn(process.execPath, [mainFile(folder.path)], { stdio, env: {}, detached: true });
    this.exited = once(this.child, "exit");
    this.closed = once(this.child, "close");
    // A process that cannot be started has neither.
    for (const end of [this.exited, this.closed]) end.catch(() => {});
    // EPIPE: it ended meanwhile, which `exited` tells.
    this.#commands.on("error", () => {});
  }

  /** Where its app is to lie. */
  get folder(): string {
    return this.#folder.path;
  }

  get isAlive(): boolean {
    const { pid, exitCode, signalCode } = this.child;
    return pid !== undefined && exitCode === null && signalCode === null;
  }

  begin(order: Order): void {
    this.#commands.write(`${JSON.stringify(order)}\n`);
  }

  [Symbol.dispose](): void {
    if (this.isAlive) killGroup(this.child);
    this.#folder[Symbol.dispose]();
  }

  get #commands(): Writable {
    return this.child.stdio[COMMANDS] as Writable;
  }
}

/** Throws Node's file system errors, with nothing left behind. */
export async function startStandby(): Promise<Standby> {
  return new Standby(makeFolder(await loadPrograms()));
}

/** The process and all that it started. */
export function killGroup({ pid }: ChildProcess): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch (error) {
    // ESRCH: nobody is left in it. EPERM, on macOS: those that are left are dying.
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "ESRCH" && code !== "EPERM") throw error;
  }
}
