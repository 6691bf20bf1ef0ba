/** `cloister dev` in a terminal of its own (script(1)), as a person has it: files to save, keys to press, events to wait for. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { LoopEvent } from "../../dev/event.ts";

const ENTRY = fileURLToPath(new URL("../../cli/entry.ts", import.meta.url));
const ROOT = dirname(dirname(ENTRY));

type EventOf<T extends LoopEvent["type"]> = Extract<LoopEvent, { type: T }>;

export class DevSession implements AsyncDisposable {
  readonly directory: string;
  readonly events: LoopEvent[] = [];
  readonly #child: ChildProcess;
  readonly #exited: Promise<number | null>;
  #wake = Promise.withResolvers<void>();
  #seen = 0;

  constructor(files: Readonly<Record<string, string>>, words: readonly string[]) {
    this.directory = mkdtempSync(join(tmpdir(), "cloister-dev-"));
    for (const [path, text] of Object.entries({ "package.json": '{"type":"module"}', ...files })) {
      this.save(path, text);
    }
    const command = [process.execPath, ENTRY, "dev", "--json", ...words].map((word) => `'${word}'`).join(" ");
    this.#child = spawn("script", ["-qefc", command, "/dev/null"], {
      cwd: this.directory,
      env: {
        ...process.env,
        XDG_CACHE_HOME: join(ROOT, "node_modules/.cache"),
        XDG_DATA_HOME: join(this.directory, "data"),
      },
      stdio: ["pipe", "pipe", "inherit"],
    });
    if (this.#child.stdout === null) throw new Error("BUG: no stdout");
    createInterface({ input: this.#child.stdout }).on("line", (line) => this.#read(line));
    this.#exited = once(this.#child, "exit").then(([status]) => {
      this.#wake.resolve();
      return status;
    });
  }

  /** The folder of the development root. */
  get data(): string {
    return join(this.directory, "data", "cloister", "attestation");
  }

  save(path: string, text: string): void {
    mkdirSync(dirname(join(this.directory, path)), { recursive: true });
    writeFileSync(join(this.directory, path), text);
  }

  press(key: string): void {
    this.#child.stdin?.write(key);
  }

  /** The next event of this type, from the last one that was waited for; those between are skipped. */
  async next<T extends LoopEvent["type"]>(type: T): Promise<EventOf<T>> {
    for (;;) {
      const found = this.events.findIndex((event, index) => index >= this.#seen && event.type === type);
      if (found >= 0) {
        this.#seen = found + 1;
        return this.events[found] as EventOf<T>;
      }
      if (this.#child.exitCode !== null) throw new Error(`it ended before ${type}:\n${this.story()}`);
      await this.#wake.promise;
    }
  }

  get exited(): Promise<number | null> {
    return this.#exited;
  }

  story(): string {
    return this.events.map((event) => JSON.stringify(event)).join("\n");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGTERM");
    await this.#exited;
    rmSync(this.directory, { recursive: true, force: true });
  }

  #read(line: string): void {
    // The terminal echoes what is typed before raw mode.
    if (!line.startsWith("{")) return;
    this.events.push(JSON.parse(line) as LoopEvent);
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }
}
