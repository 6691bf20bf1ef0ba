import { relative, resolve } from "node:path";
import { type BuildResult, build as buildEif, type Report, type SbomFormat } from "../packer/index.ts";
import { breakdown, reportJson } from "./breakdown.ts";
import { command, type Io, QUIET } from "./command.ts";
import { parseCompression, refusal } from "./operand.ts";
import { writeOutput } from "./output.ts";
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
      choices: ["none", "gzip", "zstd"],
      description:
        "Of the ramdisks: none, gzip or zstd, such as zstd:19 (default: the configuration's, or zstd:9)",
    },
    report: {
      type: "boolean",
      description: "Show what is in it and why: packages, licenses, who imports them",
    },
    sbom: {
      type: "string",
      multiple: true,
      value: "FILE",
      description: "Write a bill of materials: NAME.cdx.json (CycloneDX) or NAME.spdx.json (SPDX)",
    },
    quiet: QUIET,
    json: { type: "boolean", description: "One JSON value: path, size, measurements, sections" },
  },
  examples: [
    "cloister build",
    "cloister build src/app.ts -o app.eif",
    "cloister build --json | jq -r .Measurements.PCR0",
    "cloister build --report --sbom app.cdx.json",
  ],
  async run(io, operands, values) {
    const [entry] = operands;
    const directory = resolve(io.directory, values.project ?? ".");
    const sboms = (values.sbom ?? []).map((path) => ({ path, format: sbomFormat(path) }));
    const quiet = values.quiet === true;
    const step = progress(io, quiet);
    const result = await buildEif({
      directory,
      ...(entry !== undefined && { entry: resolve(io.directory, entry) }),
      ...(values.output !== undefined && { output: resolve(io.directory, values.output) }),
      ...(values.compression !== undefined && {
        overrides: { compression: parseCompression(values.compression) },
      }),
      onProgress: step,
    }).finally(() => step.done());
    for (const { path, format } of sboms) await writeOutput(resolve(io.directory, path), result.sbom(format));
    if (!quiet) for (const warning of result.warnings) io.stderr.write(`warning: ${warning}\n`);
    const report = values.report === true ? result.report() : undefined;
    io.stdout.write(values.json === true ? json(result, report) : text(result, report, io));
    return 0;
  },
});

/** By the names that both standards recommend. */
function sbomFormat(path: string): SbomFormat {
  if (path.endsWith(".cdx.json")) return "cyclonedx";
  if (path.endsWith(".spdx.json")) return "spdx";
  throw refusal("--sbom", path, "a name that ends in .cdx.json or .spdx.json");
}

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

function json(result: BuildResult, report: Report | undefined): string {
  const value = { ...toJson(result), ...(report !== undefined && { Report: reportJson(report) }) };
  return `${JSON.stringify(value, null, 2)}\n`;
}

function text(result: BuildResult, report: Report | undefined, io: Io): string {
  return table(result, io) + (report === undefined ? "" : `\n${breakdown(report, result.sections)}`);
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
