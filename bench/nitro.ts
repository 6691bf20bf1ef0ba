/**
 * What the ioctl device costs: `node bench/nitro.ts [--runs N]`. The hello example from launch() to its heartbeat and to
 * ready, in the emulator and by ioctl under `cloister emulate`; resident memory of each launcher. Needs 128 free huge
 * pages of 2 MiB. A table on stderr, one JSON value on stdout.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { median, table, withImage } from "./image.ts";

const ENTRY = join(import.meta.dirname, "../cli/entry.ts");
const FREE_PAGES = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
const MEMORY_MIB = 256;
const WAYS = {
  emulator: (run: readonly string[]) => [ENTRY, ...run, "--emulator"],
  ioctl: (run: readonly string[]) => [ENTRY, "emulate", "--", process.execPath, ENTRY, ...run],
} as const;

/** Milliseconds since launch() by stage, then `rssMB` of the process that was started. */
type Run = Record<string, number>;

/** One `cloister run`, asked to stop when it is ready. */
async function run(words: readonly string[]): Promise<Run> {
  const child = spawn(process.execPath, words, { stdio: ["ignore", "ignore", "pipe"] });
  const exited = once(child, "exit");
  const result: Run = {};
  const lines: string[] = [];
  for await (const line of createInterface({ input: child.stderr })) {
    lines.push(line);
    const event = line.startsWith("{") ? JSON.parse(line) : {};
    if (event.type === "stage") result[event.stage] = event.elapsedMs;
    if (event.type !== "ready") continue;
    result.ready = event.elapsedMs;
    result.rssMB = residentMB(child);
    child.kill("SIGTERM");
  }
  await exited;
  if (result.ready === undefined) throw new Error(`it was never ready:\n${lines.join("\n")}`);
  return result;
}

function residentMB({ pid }: ChildProcess): number {
  const [, kib] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  return Number(kib) / 1000;
}

const { values } = parseArgs({ options: { runs: { type: "string", default: "5" } } });
const pages = Number(readFileSync(FREE_PAGES, "utf8"));
if (pages < MEMORY_MIB / 2) {
  console.error(`${pages} huge pages are free, ${MEMORY_MIB / 2} are needed: nothing was measured`);
  console.log(JSON.stringify({ skipped: "too few huge pages" }));
} else {
  const rows = await withImage({ memory: MEMORY_MIB }, async ({ eifPath }) => {
    const runs: Record<string, Run[]> = { emulator: [], ioctl: [] };
    for (let round = 0; round < Number(values.runs); round++) {
      for (const [way, words] of Object.entries(WAYS)) {
        runs[way]?.push(await run(words(["run", eifPath, "--json"])));
      }
    }
    return Object.entries(runs).map(([way, results]) => {
      const keys = Object.keys(results[0] ?? {});
      const medians = keys.map((key) => [
        key,
        Math.round(median(results.map((at) => at[key] ?? Number.NaN))),
      ]);
      return { way, ...Object.fromEntries(medians) };
    });
  });
  console.error(table(rows));
  console.log(JSON.stringify(rows));
}
