import type { EifDescription } from "../format/describe.ts";
import { CloisterError } from "../format/errors.ts";
import { askHealth, describeEnclave } from "../launcher/client.ts";
import { describeOpenFile, openEif } from "../launcher/measure.ts";
import type { Registry } from "../launcher/registry.ts";
import { command, oneOperand } from "./command.ts";
import { openRegistry } from "./order.ts";
import { describeJson, healthJson, ownJson } from "./summary.ts";

export const describe = command({
  name: "describe",
  operands: "[FILE]",
  options: {
    enclave: { type: "string", short: "e", value: "NAME|ID", description: "An enclave in place of a file" },
    json: {
      type: "boolean",
      description:
        "One JSON value with the keys of nitro-cli's describe-eif, or describe-enclaves --metadata",
    },
  },
  examples: [
    "cloister describe app.eif",
    "cloister describe app.eif --json | jq -r .Measurements.PCR0",
    "cloister describe --enclave app",
  ],
  async run(io, operands, { enclave, json }) {
    if (enclave !== undefined && operands.length > 0) {
      throw new CloisterError(
        "E_USAGE",
        "cloister describe: found a file and --enclave, expected one of them",
      );
    }
    const description =
      enclave === undefined
        ? await describeFile(oneOperand(describe, operands, "EIF file"))
        : await describeRunning(openRegistry(io), enclave);
    io.stdout.write(json === true ? `${JSON.stringify(description, null, 2)}\n` : table(description));
    return 0;
  },
});

/** Throws E_EIF_READ, or what is wrong with the file. */
export async function describeFile(path: string): Promise<EifDescription> {
  await using file = await openEif(path);
  return await describeOpenFile(file, path);
}

/** describe-enclaves --metadata's keys, then ours, and how it does. An enclave that ended keeps only what its record says. */
async function describeRunning(registry: Registry, nameOrId: string): Promise<object> {
  const entry = registry.find(nameOrId);
  const { record } = entry;
  if (record.state === "ended") return { ...describeJson(record), ...ownJson(record) };
  const [image, health] = await Promise.all([describeEnclave(registry, entry), askHealth(entry)]);
  const { Measurements, ImageName, ImageVersion, Metadata } = image;
  return {
    ...describeJson(record),
    ...{ Measurements, ImageName, ImageVersion, Metadata },
    ...ownJson(record),
    ...healthJson(health),
  };
}

/** For people: one fact a line, nested keys indented. */
function table(description: object): string {
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
