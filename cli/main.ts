/** argv → one verb → output and exit status. 0: done; 1: a cloister error; 2: usage; `run`: the app's own status. */
import { readFileSync } from "node:fs";
import { CloisterError } from "../format/errors.ts";
import { type Io, type Verb, verb } from "./command.ts";
import { reportError } from "./report.ts";

/** Each is loaded when it is called: to import them all takes half a second. */
export const VERBS: readonly Verb[] = [
  verb(
    "build",
    "Pack a TypeScript app into an EIF and print its measurements",
    async () => (await import("./build.ts")).build,
  ),
  verb(
    "types",
    "Write TypeScript declarations of the app's environment and of the files that it imports",
    async () => (await import("./types.ts")).types,
  ),
  verb(
    "dev",
    "Run the app in a local enclave, and again whenever a file of it is saved",
    async () => (await import("./dev.ts")).dev,
  ),
  verb(
    "run",
    "Start an EIF as an enclave and stay with it until it ends",
    async () => (await import("./run.ts")).run,
  ),
  verb(
    "proxy",
    "Carry the outbound connections of an enclave that another program started",
    async () => (await import("./proxy.ts")).proxy,
  ),
  verb("ps", "List this user's enclaves", async () => (await import("./ps.ts")).ps),
  verb(
    "logs",
    "Show what an enclave's app wrote: the latest 1 to 2 MiB of it, also after its end",
    async () => (await import("./logs.ts")).logs,
  ),
  verb(
    "console",
    "Show the serial console of an enclave in debug mode, from its start, until the enclave ends",
    async () => (await import("./console.ts")).console,
  ),
  verb(
    "wait",
    "Wait until an enclave ended, print how, and exit with the app's status as `run` does",
    async () => (await import("./wait.ts")).wait,
  ),
  verb(
    "stop",
    "Ask enclaves to stop: the app sees SIGTERM and has some time, then the enclave is terminated",
    async () => (await import("./stop.ts")).stop,
  ),
  verb(
    "terminate",
    "End enclaves at once, as a power cut",
    async () => (await import("./terminate.ts")).terminate,
  ),
  verb(
    "describe",
    "Show what an EIF holds, or a running enclave is: PCRs, signature, metadata",
    async () => (await import("./describe.ts")).describe,
  ),
  verb(
    "inspect",
    "List what an EIF holds, file by file, or print one of them",
    async () => (await import("./inspect.ts")).inspect,
  ),
  verb(
    "diff",
    "Tell what differs between two EIFs, and which PCRs that changes",
    async () => (await import("./diff.ts")).diff,
  ),
  verb(
    "attest",
    "Verify what runs in an enclave, by its URL or a saved attestation document",
    async () => (await import("./attest.ts")).attest,
  ),
  verb(
    "doctor",
    "Check this machine, and an EIF against it, before any launch",
    async () => (await import("./doctor.ts")).doctor,
  ),
  verb(
    "emulate",
    "Run any command on a machine with an emulated /dev/nitro_enclaves and AF_VSOCK",
    async () => (await import("./emulate.ts")).emulate,
  ),
  verb(
    "completion",
    "Print a script by which bash, zsh or fish completes this command line",
    async () => (await import("./completion.ts")).completion,
  ),
  verb(
    "node",
    "Run Node as in the enclave: the pinned one, for tests and scripts",
    async () => (await import("./node.ts")).node,
  ),
];

/** Run cloister with these words. Never rejects; returns the exit status. */
export async function main(words: readonly string[], io: Io): Promise<number> {
  try {
    return await dispatch(words, io);
  } catch (error) {
    return reportError(error, words, io);
  }
}

async function dispatch([name, ...words]: readonly string[], io: Io): Promise<number> {
  if (name === undefined) {
    const { lookAround, nextSteps } = await import("./next.ts");
    io.stdout.write(nextSteps(lookAround(io)));
    return 0;
  }
  if (name === "help" || name === "--help" || name === "-h") {
    io.stdout.write(overview());
    return 0;
  }
  if (name === "--version" || name === "-V") {
    io.stdout.write(`${version()}\n`);
    return 0;
  }
  const found = VERBS.find((verb) => verb.name === name);
  if (found === undefined) {
    const known = VERBS.map((verb) => verb.name);
    const { nearest } = await import("../packer/check.ts");
    const near = nearest(name, known);
    const hint = near === undefined ? {} : { fix: `Did you mean "${near}"?` };
    throw new CloisterError("E_USAGE", `found the verb "${name}", expected one of ${known.join(", ")}`, hint);
  }
  return found.run(io, words);
}

function overview(): string {
  const width = Math.max(...VERBS.map(({ name }) => name.length)) + 2;
  return [
    "cloister ships one TypeScript app as an AWS Nitro Enclave.",
    "",
    "Usage: cloister VERB [OPTIONS]",
    "",
    ...VERBS.map(({ name, summary }) => `  ${name.padEnd(width)}${summary}`),
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
