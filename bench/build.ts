/**
 * What a build costs: `node bench/build.ts [--slow]`. A table on stderr, one JSON value on stdout. Every build is a process
 * of its own, timed from its start; `--slow` adds the levels that take a minute.
 */
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BuildResult, Compression } from "../packer/index.ts";

const ROOT = join(import.meta.dirname, "..");
const WARM_RUNS = 5;
const QUICK: readonly Compression[] = [
  { algorithm: "none" },
  { algorithm: "gzip", level: 1 },
  { algorithm: "gzip", level: 6 },
  { algorithm: "gzip", level: 9 },
  { algorithm: "zstd", level: 1 },
  { algorithm: "zstd", level: 3 },
  { algorithm: "zstd", level: 6 },
  { algorithm: "zstd", level: 9 },
  { algorithm: "zstd", level: 12 },
];
const SLOW: readonly Compression[] = [
  { algorithm: "zstd", level: 17 },
  { algorithm: "zstd", level: 19 },
  { algorithm: "zstd", level: 22 },
];

interface Build {
  readonly result: BuildResult;
  /** From the start of the process to its end. */
  readonly wallMs: number;
  /** Of the process, without esbuild's. */
  readonly cpuMs: number;
}

/** The child: argv is a JSON object of BuildOptions. */
const PROGRAM = `
  const { build } = await import("../packer/index.ts");
  const result = await build(JSON.parse(process.argv[1]));
  const { user, system } = process.cpuUsage();
  console.log(JSON.stringify({ result, cpuMs: Math.round((user + system) / 1000) }));`;

function buildOnce(options: object): Build {
  const start = performance.now();
  const stdout = execFileSync(
    process.execPath,
    ["--input-type=module", "-e", PROGRAM, JSON.stringify(options)],
    {
      cwd: ROOT,
      encoding: "utf8",
    },
  );
  return { ...(JSON.parse(stdout) as Build), wallMs: Math.round(performance.now() - start) };
}

function measureDefaults(directory: string): object {
  const options = { directory, cacheDirectory: join(directory, "cache") };
  const cold = buildOnce(options);
  const warm = Array.from({ length: WARM_RUNS }, (_, run) => {
    writeFileSync(join(directory, "edited.ts"), `export const run = ${run};\n`);
    writeFileSync(
      join(directory, "app.ts"),
      `import { run } from "./edited.ts"; export default { fetch: () => new Response(String(run)) };\n`,
    );
    return buildOnce(options);
  }).sort((a, b) => a.wallMs - b.wallMs);
  const median = warm[Math.floor(WARM_RUNS / 2)] ?? cold;
  const { sizeBytes, sections, memoryMiB } = median.result;
  print(["", "wall ms", "CPU ms", "steps, ms"]);
  print(["cold", cold.wallMs, cold.cpuMs, JSON.stringify(cold.result.timings)]);
  print([`warm, median of ${WARM_RUNS}`, median.wallMs, median.cpuMs, JSON.stringify(median.result.timings)]);
  print(["", "bytes"]);
  for (const { type, sizeBytes } of sections) print([type, sizeBytes]);
  print(["EIF", sizeBytes]);
  return { cold: summary(cold), warm: summary(median), sizeBytes, sections, memoryMiB };
}

function measureCompression(directory: string, compression: Compression): object {
  const options = {
    directory,
    cacheDirectory: join(directory, "cache"),
    overrides: { compression, memory: "1G" },
  };
  rmSync(join(directory, "cache"), { recursive: true, force: true });
  const build = buildOnce(options);
  const level = compression.algorithm === "none" ? "" : ` ${compression.level}`;
  const { sizeBytes, memoryMiB } = build.result;
  print([`${compression.algorithm}${level}`, sizeBytes, build.wallMs, build.cpuMs, memoryMiB.needed]);
  return { compression, sizeBytes, neededMiB: memoryMiB.needed, ...summary(build) };
}

function summary({ wallMs, cpuMs, result }: Build): object {
  return { wallMs, cpuMs, timings: result.timings };
}

function print(cells: readonly (string | number)[]): void {
  const padded = cells.map((cell, column) =>
    column === 0 ? String(cell).padEnd(18) : String(cell).padStart(10),
  );
  console.error(padded.join("  ").trimEnd());
}

const directory = mkdtempSync(join(tmpdir(), "cloister-bench-"));
try {
  cpSync(join(ROOT, "examples/hello"), directory, { recursive: true });
  const defaults = measureDefaults(directory);
  print(["", "EIF bytes", "wall ms", "CPU ms", "needs MiB"]);
  const levels = process.argv.includes("--slow") ? [...QUICK, ...SLOW] : QUICK;
  const compression = levels.map((level) => measureCompression(directory, level));
  console.log(JSON.stringify({ ...defaults, compression }, null, 2));
} finally {
  rmSync(directory, { recursive: true });
}
