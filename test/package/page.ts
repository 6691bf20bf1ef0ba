/** A page's commands, typed one after the other, as by a reader with two terminals. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { run } from "./install.ts";

/** What a command that goes on running prints when it is time for the next one. */
const FOREGROUND: Readonly<Record<string, RegExp>> = {
  "npm run dev": /serving after/,
  // One JSON object, whole.
  "npm start": /^}$/m,
};
const SAVED = /changed: serving after/;

export interface Typed {
  readonly command: string;
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The lines of a page's shell blocks. */
export function commandsOf(page: string): string[] {
  return [...page.matchAll(/```sh\n([\s\S]*?)```/g)].flatMap(([, block = ""]) => block.trim().split("\n"));
}

export class Reader {
  #directory: string;
  readonly #creator: string;
  readonly #port: number;
  #foreground: { readonly child: ChildProcess; output: string } | undefined;

  /** `creator`: path of create-cloister. `port`: in the place of the page's 8080, which may be taken here. */
  constructor(directory: string, creator: string, port: number) {
    this.#directory = directory;
    this.#creator = creator;
    this.#port = port;
  }

  async type(command: string): Promise<Typed> {
    const done = { command, status: 0, stdout: "", stderr: "" };
    if (command.startsWith("cd ")) {
      this.#directory = join(this.#directory, command.slice(3));
      this.#movePort();
      return done;
    }
    const pattern = FOREGROUND[command];
    if (pattern !== undefined) {
      await this.stop();
      this.#start(command);
      await this.#printed(pattern);
      return done;
    }
    const create = /^npm create cloister (.*)/.exec(command)?.[1];
    if (create !== undefined) {
      return { command, ...run(this.#directory, this.#creator, create, "--yes", "--no-install") };
    }
    const typed = run(this.#directory, "bash", "-c", command.replace(":8080", `:${this.#port}`));
    if (command.startsWith("sed ") && this.#foreground?.output.includes("serving after")) {
      await this.#printed(SAVED);
    }
    return { command, ...typed };
  }

  /** As a terminal's Ctrl-C: the whole group gets it. */
  async stop(): Promise<void> {
    const child = this.#foreground?.child;
    this.#foreground = undefined;
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    process.kill(-child.pid, "SIGINT");
    await once(child, "exit");
  }

  /** Without a VM for the dev loop: test/e2e/dev.test.ts has one. */
  #movePort(): void {
    const path = join(this.#directory, "package.json");
    const text = readFileSync(path, "utf8")
      .replace("--publish 8080:", `--publish ${this.#port}:`)
      .replace('"cloister dev"', `"cloister dev --bare --publish ${this.#port}:8080"`);
    writeFileSync(path, text);
  }

  #start(command: string): void {
    const child = spawn("bash", ["-c", `${command} 2>&1`], {
      cwd: this.#directory,
      detached: true,
      stdio: ["ignore", "pipe", "inherit"],
    });
    const foreground = { child, output: "" };
    child.stdout.on("data", (chunk) => {
      foreground.output += chunk;
    });
    this.#foreground = foreground;
  }

  /** Rejects when the process ends before, with what it said. */
  async #printed(pattern: RegExp): Promise<void> {
    const foreground = this.#foreground;
    while (foreground !== undefined && !pattern.test(foreground.output)) {
      const { child, output } = foreground;
      if (child.exitCode !== null) throw new Error(`expected ${pattern}, got its end: ${output}`);
      await Promise.race([once(child.stdout ?? child, "data"), once(child, "exit")]);
    }
  }
}
