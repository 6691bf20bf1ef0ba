import { relative, resolve } from "node:path";
import { type BuildResult, build as buildEif } from "../packer/index.ts";
import { command, type Io } from "./command.ts";
import { parseCompression } from "./operand.ts";
import { progress } from "./progress.ts";

export const build = command({
  name: "build",
  operands: "[ENTRY]",
  options: {
    output: {
      type: "string",
      short: "o",
      value: "FILE",
      description: "Where to write it (default: NAME.eif)",
    },
    project: {
      type: "string",
      value: "DIR",
      description: "Folder of cloister.config.ts (default: this one)",
    },
    compression: {
      type: "string",
      value: "KIND[:LEVEL]",
      description: "none, gzip or zstd, e.g. zstd:19 (default: the configuration's, or zstd:9)",
    },
    json: { type: "boolean", description: "One JSON value: path, size, measurements, sections" },
  },
  examples: [
    "cloister build",
    "cloister build src/app.ts -o app.eif",
    "cloister build --json | jq -r .Measurements.PCR0",
  ],
  async run(io, operands, values) {
    const [entry] = operands;
    const directory = resolve(io.directory, values.project ?? ".");
    const step = progress(io);
    const result = await buildEif({
      directory,
      ...(entry !== undefined && { entry: resolve(io.directory, entry) }),
      ...(values.output !== undefined && { output: resolve(io.directory, values.output) }),
      ...(values.compression !== undefined && {
        overrides: { compression: parseCompression(values.compression) },
      }),
      onProgress: step,
    }).finally(() => step.done());
    for (const warning of result.warnings) io.stderr.write(`warning: ${warning}\n`);
    io.stdout.write(
      values.json === true ? `${JSON.stringify(toJson(result), null, 2)}\n` : table(result, io),
    );
    return 0;
  },
});

/** Keys as in nitro-cli's output, so that scripts read both. */
export function toJson({ eifPath, sizeBytes, measurements, sections }: BuildResult): object {
  return {
    EifPath: eifPath,
    SizeBytes: sizeBytes,
    Measurements: measurements,
    Sections: sections.map(({ type, offset, sizeBytes }) => ({
      Type: type,
      Offset: offset,
      SizeBytes: sizeBytes,
    })),
  };
}

function table({ eifPath, sizeBytes, measurements, memoryMiB, timings }: BuildResult, io: Io): string {
  const { PCR0, PCR1, PCR2 } = measurements;
  return [
    `${relative(io.directory, eifPath) || eifPath}  ${(sizeBytes / 1e6).toFixed(1)} MB in ${(timings.total / 1000).toFixed(1)} s`,
    `  PCR0  ${PCR0}  everything`,
    `  PCR1  ${PCR1}  kernel, init, Node`,
    `  PCR2  ${PCR2}  the app`,
    `  runs in ${memoryMiB.configured} MiB (needs ${memoryMiB.needed})`,
    "",
  ].join("\n");
}
