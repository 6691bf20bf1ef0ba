/** argv → one verb → output and exit status. 0: done; 1: a cloister error; 2: usage; `run`: the app's own status. */
import { readFileSync } from "node:fs";
import { CloisterError } from "../format/errors.ts";
import { attest } from "./attest.ts";
import { build } from "./build.ts";
import { type Command, type Io, runCommand } from "./command.ts";
import { describe } from "./describe.ts";
import { emulate } from "./emulate.ts";
import { reportError } from "./report.ts";
import { run } from "./run.ts";

// Each verb has its own option types; the dispatcher needs none of them.
export const COMMANDS: readonly Command[] = [
  build,
  run,
  describe,
  attest,
  emulate,
] as unknown as readonly Command[];

/** Run cloister with these words. Never rejects; returns the exit status. */
export async function main(words: readonly string[], io: Io): Promise<number> {
  try {
    return await dispatch(words, io);
  } catch (error) {
    return reportError(error, words, io);
  }
}

async function dispatch([verb, ...words]: readonly string[], io: Io): Promise<number> {
  if (verb === undefined || verb === "help" || verb === "--help" || verb === "-h") {
    io.stdout.write(overview());
    return 0;
  }
  if (verb === "--version" || verb === "-V") {
    io.stdout.write(`${version()}\n`);
    return 0;
  }
  const command = COMMANDS.find(({ name }) => name === verb);
  if (command === undefined) {
    const known = COMMANDS.map(({ name }) => name).join(", ");
    throw new CloisterError("E_USAGE", `found the verb "${verb}", expected one of ${known}`);
  }
  return runCommand(command, words, io);
}

function overview(): string {
  const width = Math.max(...COMMANDS.map(({ name }) => name.length)) + 2;
  return [
    "cloister ships one TypeScript app as an AWS Nitro Enclave.",
    "",
    "Usage: cloister VERB [OPTIONS]",
    "",
    ...COMMANDS.map(({ name, summary }) => `  ${name.padEnd(width)}${summary}`),
    "",
    "`cloister VERB --help` tells more of each.",
    "",
  ].join("\n");
}

function version(): string {
  const path = [new URL("../package.json", import.meta.url), new URL("../../package.json", import.meta.url)];
  for (const url of path) {
    try {
      return (JSON.parse(readFileSync(url, "utf8")) as { version: string }).version;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  }
  throw new Error("BUG: no package.json beside cloister");
}
