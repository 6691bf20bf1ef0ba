/** The smallest enclave in which the hello example answers: `node bench/memory.ts`. One JSON value on stdout. */
import { bootOnce, withImage } from "./image.ts";

const STEP_MIB = 8;

async function answers(eifPath: string, memoryMiB: number): Promise<boolean> {
  try {
    await bootOnce(eifPath, memoryMiB);
    return true;
  } catch {
    // It crashed before it was ready: too little.
    return false;
  }
}

/** Least multiple of STEP_MIB that works, between one that does not and one that does. */
async function search(eifPath: string): Promise<number> {
  let [fails, works] = [64, 512];
  while (works - fails > STEP_MIB) {
    const middle = Math.round((fails + works) / 2 / STEP_MIB) * STEP_MIB;
    if (await answers(eifPath, middle)) works = middle;
    else fails = middle;
  }
  return works;
}

const results = [];
for (const compression of [
  { algorithm: "zstd", level: 9 } as const,
  { algorithm: "zstd", level: 19 } as const,
]) {
  const smallest = await withImage({ compression, memory: 512 }, async ({ eifPath, memoryMiB }) => ({
    worksMiB: await search(eifPath),
    packerAsksMiB: memoryMiB.needed,
  }));
  results.push({ compression: `${compression.algorithm} ${compression.level}`, ...smallest });
}
console.error(
  results
    .map((row) => `${row.compression}: ${row.worksMiB} MiB (the packer asks for ${row.packerAsksMiB})`)
    .join("\n"),
);
console.log(JSON.stringify({ smallestMemory: results }));
