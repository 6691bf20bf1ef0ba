/**
 * `cloister dev`, with and without a VM: from the start to the first response, and from a save to the first new response,
 * one save at a time and each 3 s after the one before: `node bench/dev.ts [--saves N] [--mode vm|bare]`. A table on stderr, one
 * JSON value on stdout.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import type { LoopEvent } from "../dev/event.ts";
import { median, table } from "./image.ts";

const ENTRY = join(import.meta.dirname, "../cli/entry.ts");
/** A person reads what happened before saving again. */
const PAUSE_MS = 3_000;

const app = (text: string) => `export default { fetch: () => new Response("${text}") };\n`;

async function measure(name: string, words: readonly string[], saves: number) {
  const directory = mkdtempSync(join(tmpdir(), "cloister-bench-"));
  writeFileSync(join(directory, "package.json"), '{"type":"module"}');
  writeFileSync(join(directory, "app.ts"), app("0"));
  const begin = performance.now();
  const child = spawn(process.execPath, [ENTRY, "dev", "--json", "--publish", "127.0.0.1:0:8080", ...words], {
    cwd: directory,
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    const url = Promise.withResolvers<string>();
    createInterface({ input: child.stdout }).on("line", (line) => {
      const event = JSON.parse(line) as LoopEvent;
      if (event.type === "published") url.resolve(`http://127.0.0.1:${event.ports[0]?.port}`);
    });
    const place = await url.promise;
    await until(place, "0");
    const firstMs = Math.round(performance.now() - begin);
    const times: number[] = [];
    for (let save = 1; save <= saves; save++) {
      await sleep(PAUSE_MS);
      const start = performance.now();
      writeFileSync(join(directory, "app.ts"), app(`${save}`));
      await until(place, `${save}`);
      times.push(performance.now() - start);
    }
    const round = (value: number) => Math.round(value);
    return { name, firstMs, saveMedianMs: round(median(times)), saveMaxMs: round(Math.max(...times)) };
  } finally {
    child.kill("SIGTERM");
    await once(child, "exit");
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Ask until this is the answer. */
async function until(url: string, text: string): Promise<void> {
  for (;;) {
    try {
      const response = await fetch(url, { headers: { connection: "close" } });
      if ((await response.text()) === text) return;
    } catch {
      // Reset: no app yet.
    }
    await sleep(5);
  }
}

const MODES = { vm: [], bare: ["--bare"] };

const { values } = parseArgs({
  options: { saves: { type: "string", default: "10" }, mode: { type: "string" } },
});
const saves = Number(values.saves);
const rows = [];
for (const [mode, words] of Object.entries(MODES)) {
  if (values.mode === undefined || values.mode === mode) rows.push(await measure(mode, words, saves));
}
console.error(table(rows));
console.log(JSON.stringify({ saves, dev: rows }));
