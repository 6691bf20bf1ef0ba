import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { crc32 } from "node:zlib";
import { describeEif, type EifDescription } from "../format/describe.ts";
import { CloisterError } from "../format/errors.ts";
import { command, oneOperand } from "./command.ts";

export const describe = command({
  name: "describe",
  operands: "FILE",
  options: {
    json: { type: "boolean", description: "One JSON value with nitro-cli describe-eif's keys" },
  },
  examples: ["cloister describe app.eif", "cloister describe app.eif --json | jq -r .Measurements.PCR0"],
  async run(io, operands, { json }) {
    const description = await describeFile(oneOperand(describe, operands, "EIF file"));
    io.stdout.write(json === true ? `${JSON.stringify(description, null, 2)}\n` : table(description));
    return 0;
  },
});

/** Throws E_EIF_READ, or what is wrong with the file. */
export async function describeFile(path: string): Promise<EifDescription> {
  await using file = await open(path).catch((cause: NodeJS.ErrnoException) => {
    throw new CloisterError("E_EIF_READ", `${path}: got ${cause.code}, expected a readable file`, { cause });
  });
  const stat = await file.stat();
  if (!stat.isFile()) throw new CloisterError("E_EIF_READ", `${path}: got no regular file, expected an EIF`);
  const reader = {
    size: stat.size,
    read: async (offset: number, length: number) => {
      const { buffer, bytesRead } = await file.read(Buffer.allocUnsafe(length), 0, length, offset);
      return buffer.subarray(0, bytesRead);
    },
  };
  try {
    return await describeEif(reader, { createSha384: () => createHash("sha384"), crc32 });
  } catch (error) {
    // The codec knows offsets, not names.
    if (error instanceof CloisterError) error.message = `${path}: ${error.message}`;
    throw error;
  }
}

/** For people: one fact a line, nested keys indented. */
function table(description: EifDescription): string {
  return `${rows(description, "").join("\n")}\n`;
}

function rows(value: object, indent: string): string[] {
  const entries = Object.entries(value);
  const width = Math.max(0, ...entries.map(([key]) => key.length)) + 2;
  return entries.flatMap(([key, inner]) =>
    typeof inner === "object" && inner !== null
      ? [`${indent}${key}`, ...rows(inner, `${indent}  `)]
      : [`${indent}${key.padEnd(width)}${String(inner)}`],
  );
}
