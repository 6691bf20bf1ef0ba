/**
 * Run under `cloister emulate` by nitro.test.ts: two enclaves that stay, each with a launcher of its own; the first launcher
 * held the shared ports and is killed; a third one must start an enclave all the same. Arguments: entry, image that stays,
 * image that ends. Prints what the third said and its exit status.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";

const [, , entry = "", staying = "", ending = ""] = process.argv;

function run(image: string): ChildProcess {
  const words = [entry, "run", image, "--memory", "64"];
  return spawn(process.execPath, words, { stdio: ["ignore", "pipe", "pipe"] });
}

/** A launcher prints the enclave's JSON once it had its heartbeat. */
async function started(child: ChildProcess): Promise<void> {
  if (child.stdout === null) throw new Error("no pipe");
  for await (const chunk of child.stdout) if (String(chunk).includes("EnclaveCID")) return;
  throw new Error("ended before its heartbeat");
}

const first = run(staying);
await started(first);
const second = run(staying);
await started(second);
first.kill("SIGKILL");
await once(first, "exit");
const third = run(ending);
const ended = once(third, "exit");
const [stdout, stderr] = await Promise.all(
  [third.stdout, third.stderr].map((stream) => (stream === null ? "" : text(stream))),
);
await ended;
const cid = /"EnclaveCID": (\d+)/.exec(stdout ?? "")?.[1];
console.log(JSON.stringify({ cid, status: third.exitCode, stderr }));
second.kill("SIGKILL");
await once(second, "exit");
