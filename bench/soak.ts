/**
 * Kill -9, again and again: `node bench/soak.ts [--rounds N] [--seed S]`. Each round starts the hello example detached and
 * kills, at a random moment from its start to well after ready, the command that starts it, its supervisor or its QEMU; then
 * nothing of it may be left but what the next command removes. One JSON value on stdout; status 1 where something was left.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { withImage } from "./image.ts";

const ENTRY = join(import.meta.dirname, "../cli/entry.ts");
const LATEST_MS = 9000;
/** What a shutdown by the starter's death may take. */
const SETTLE_MS = 60_000;
const VICTIMS = ["starter", "supervisor", "qemu"] as const;
type Victim = (typeof VICTIMS)[number];

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "60" }, seed: { type: "string", default: "1" } },
});
const run = mkdtempSync(join(tmpdir(), "cloister-soak-"));
const env = { ...process.env, CLOISTER_RUN_DIR: run };

/** mulberry32: the same moments for the same seed. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let word = Math.imul(state ^ (state >>> 15), 1 | state);
    word = (word + Math.imul(word ^ (word >>> 7), 61 | word)) ^ word;
    return ((word ^ (word >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Pid and command line of each process that carries our run directory. */
function processes(): { pid: number; words: string }[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        if (!readFileSync(`/proc/${pid}/environ`, "latin1").includes(`CLOISTER_RUN_DIR=${run}`)) return [];
        return [{ pid: Number(pid), words: readFileSync(`/proc/${pid}/cmdline`, "latin1") }];
      } catch {
        // It ended meanwhile.
        return [];
      }
    });
}

const PATTERNS: Readonly<Record<Victim, RegExp>> = {
  starter: /entry\.ts\0run/,
  supervisor: /supervisor\.ts/,
  qemu: /^[^\0]*qemu/,
};

async function list(): Promise<void> {
  const child = spawn(process.execPath, [ENTRY, "ps"], { stdio: "ignore", env });
  await once(child, "exit");
}

/** What is left once everything had its time: empty is right. */
async function leftovers(): Promise<string[]> {
  const end = performance.now() + SETTLE_MS;
  for (;;) {
    await list();
    const left = [
      ...processes().map(({ words }) => words.replaceAll("\0", " ")),
      ...readdirSync(run).filter((name) => name !== ".lock"),
    ];
    if (left.length === 0 || performance.now() > end) return left;
  }
}

/** Returns what was killed, at which moment, and what was left. */
async function round(eifPath: string, next: () => number): Promise<{ killed: boolean; left: string[] }> {
  const victim = VICTIMS[Math.floor(next() * VICTIMS.length)] ?? "supervisor";
  const moment = next() * LATEST_MS;
  const words = [ENTRY, "run", eifPath, "--emulator", "--detach", "--name", "app"];
  const child = spawn(process.execPath, words, { stdio: "ignore", env });
  const exited = once(child, "exit");
  await sleep(moment);
  const found = processes().find(({ words }) => PATTERNS[victim].test(words));
  if (found !== undefined) process.kill(found.pid, "SIGKILL");
  await exited;
  // What survived, an enclave whose starter had done its work, and records of what ended, are no leftovers.
  for (const words of [
    ["terminate", "--all"],
    ["ps", "--prune"],
  ]) {
    await once(spawn(process.execPath, [ENTRY, ...words], { stdio: "ignore", env }), "exit");
  }
  const left = await leftovers();
  console.error(
    `${victim} at ${Math.round(moment)} ms: ${found === undefined ? "was not there" : "killed"}, left ${left.length}`,
  );
  return { killed: found !== undefined, left };
}

const next = random(Number(values.seed));
const results = await withImage({ memory: 256 }, async ({ eifPath }) => {
  const all = [];
  for (let index = 0; index < Number(values.rounds); index++) all.push(await round(eifPath, next));
  return all;
});
const left = results.flatMap((result) => result.left);
console.log(
  JSON.stringify({ rounds: results.length, killed: results.filter(({ killed }) => killed).length, left }),
);
for (const { pid } of processes()) process.kill(pid, "SIGKILL");
rmSync(run, { recursive: true, force: true });
process.exitCode = left.length === 0 ? 0 : 1;
