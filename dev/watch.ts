/**
 * Files, watched by the folders they lie in: editors that write a new file and rename it onto the old one end a watch of the
 * file itself.
 */
import { type FSWatcher, watch } from "node:fs";
import { basename, dirname, join } from "node:path";

/** An editor's save is several events within some milliseconds. */
const QUIET_MS = 15;
/** A tool that writes without a pause must not put off the build for ever. */
const QUIET_LIMIT_MS = 250;

export interface WatcherOptions {
  /** Absolute paths, some time after they changed, were made or removed. */
  readonly onChange: (paths: readonly string[]) => void;
  /** A folder that cannot be watched: ENOSPC, EMFILE (too many watches), ENOENT. Changes in it go unseen. */
  readonly onUnwatched: (folder: string, code: string) => void;
}

export class Watcher implements Disposable {
  readonly #options: WatcherOptions;
  readonly #folders = new Map<string, FSWatcher | undefined>();
  #files: ReadonlySet<string> = new Set();
  #all = false;
  #changed = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #since = 0;

  constructor(options: WatcherOptions) {
    this.#options = options;
  }

  /** From here on these files, and only they. `all`: whatever else changes in their folders too. */
  watch(files: Iterable<string>, { all }: { readonly all: boolean }): void {
    this.#files = new Set(files);
    this.#all = all;
    const folders = new Set([...this.#files].map((file) => dirname(file)));
    for (const [folder, watcher] of this.#folders) {
      if (folders.has(folder)) continue;
      watcher?.close();
      this.#folders.delete(folder);
    }
    for (const folder of folders) if (this.#folders.get(folder) === undefined) this.#open(folder);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    for (const watcher of this.#folders.values()) watcher?.close();
    this.#folders.clear();
  }

  #open(folder: string): void {
    const isKnown = this.#folders.has(folder);
    this.#folders.set(folder, undefined);
    const fail = (error: NodeJS.ErrnoException) => {
      this.#folders.set(folder, undefined);
      if (!isKnown) this.#options.onUnwatched(folder, error.code ?? error.message);
    };
    try {
      const watcher = watch(folder, (_, name) => this.#see(folder, name));
      // The folder was removed, or moved away.
      watcher.on("error", fail);
      this.#folders.set(folder, watcher);
    } catch (error) {
      fail(error as NodeJS.ErrnoException);
    }
  }

  #see(folder: string, name: string | null): void {
    // The folder's own name: it was moved or removed, and this watch sees nothing more. Without a name: any of its files.
    if (name === basename(folder)) this.#forget(folder);
    if (name === null || name === basename(folder)) this.#changed.add(folder);
    else if (this.#all || this.#files.has(join(folder, name))) this.#changed.add(join(folder, name));
    else return;
    const now = performance.now();
    if (this.#timer === undefined) this.#since = now;
    clearTimeout(this.#timer);
    const delay = now - this.#since > QUIET_LIMIT_MS ? 0 : QUIET_MS;
    this.#timer = setTimeout(() => this.#tell(), delay);
  }

  /** The next `watch` opens it again. */
  #forget(folder: string): void {
    this.#folders.get(folder)?.close();
    this.#folders.set(folder, undefined);
  }

  #tell(): void {
    this.#timer = undefined;
    const paths = [...this.#changed];
    this.#changed = new Set();
    this.#options.onChange(paths);
  }
}
