/**
 * How long an enclave takes from launch() to its first response, and what compression does to it:
 * `node bench/boot.ts [--runs N]`. A table on stderr, one JSON value on stdout.
 */
import { parseArgs } from "node:util";
import type { Compression } from "../packer/index.ts";
import { type Boot, bootOnce, median, table, withImage } from "./image.ts";

const COMPRESSIONS: readonly Compression[] = [
  { algorithm: "none" },
  { algorithm: "zstd", level: 3 },
  { algorithm: "zstd", level: 9 },
  { algorithm: "zstd", level: 19 },
  { algorithm: "gzip", level: 6 },
];
/** Enough for an image that is stored as it is. */
const MEMORY_MIB = 512;

const { values } = parseArgs({ options: { runs: { type: "string", default: "5" } } });
const results = [];
for (const compression of COMPRESSIONS) {
  const name = compression.algorithm === "none" ? "none" : `${compression.algorithm} ${compression.level}`;
  results.push(
    await withImage({ compression, memory: MEMORY_MIB }, async ({ eifPath, sizeBytes }) => {
      const boots: Boot[] = [];
      for (let run = 0; run < Number(values.runs); run++) boots.push(await bootOnce(eifPath, MEMORY_MIB));
      const milestone = (key: keyof Boot) => Math.round(median(boots.map((boot) => boot[key])));
      return {
        compression: name,
        eifMB: Number((sizeBytes / 1e6).toFixed(1)),
        startedMs: milestone("started"),
        kernelMs: milestone("kernel"),
        initMs: milestone("init"),
        heartbeatMs: milestone("heartbeat"),
        readyMs: milestone("ready"),
        responseMs: milestone("response"),
      };
    }),
  );
}
console.error(table(results));
console.log(JSON.stringify({ runs: Number(values.runs), memoryMiB: MEMORY_MIB, boots: results }));
