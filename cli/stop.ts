import { CloisterError } from "../format/errors.ts";
import { stopEnclave } from "../launcher/client.ts";
import type { EnclaveEnd } from "../launcher/record.ts";
import type { Entry, Registry } from "../launcher/registry.ts";
import { ALWAYS_JSON, command, type Io } from "./command.ts";
import { STOP_DEADLINE_MS } from "./deadline.ts";
import { parseInteger } from "./operand.ts";
import { openRegistry } from "./order.ts";
import { endJson, terminatedJson } from "./summary.ts";

const SECONDS_MAX = 86_400;

export const stop = command({
  name: "stop",
  operands: "NAME|ID…",
  options: {
    time: { type: "string", short: "t", value: "SECONDS", description: "How long the app may take (10)" },
    all: { type: "boolean", description: "All that run" },
    json: ALWAYS_JSON,
  },
  examples: ["cloister stop app", "cloister stop --time 60 --all"],
  async run(io, operands, values) {
    const seconds = parseInteger("--time", values.time ?? String(STOP_DEADLINE_MS / 1000), 0, SECONDS_MAX);
    return endEach(io, "stop", operands, values.all === true, (registry, entry) =>
      stopEnclave(registry, entry, seconds * 1000),
    );
  },
});

/**
 * End the named enclaves, or all that run, at the same time, and print nitro-cli terminate-enclave's keys and how each
 * ended: one object for one name, else a list.
 */
export async function endEach(
  io: Io,
  verb: string,
  operands: readonly string[],
  all: boolean,
  end: (registry: Registry, entry: Entry) => Promise<EnclaveEnd>,
): Promise<number> {
  if ((operands.length === 0) !== all) {
    const found = all ? "--all with names" : "no name";
    throw new CloisterError("E_USAGE", `cloister ${verb}: found ${found}, expected names, or --all`);
  }
  const registry = openRegistry(io);
  const entries = all
    ? registry.list().filter(({ record }) => record.state !== "ended")
    : operands.map((operand) => registry.find(operand));
  const results = await Promise.all(
    entries.map(async (entry) => ({
      ...terminatedJson(entry.record),
      End: endJson(await end(registry, entry)),
    })),
  );
  const [first] = results;
  io.stdout.write(`${JSON.stringify(results.length === 1 && !all ? first : results, null, 2)}\n`);
  return 0;
}
