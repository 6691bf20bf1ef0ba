import { awaitEnd } from "../launcher/client.ts";
import { ALWAYS_JSON, command, oneOperand } from "./command.ts";
import { openRegistry } from "./order.ts";
import { exitStatus } from "./outcome.ts";
import { reportError } from "./report.ts";
import { endJson } from "./summary.ts";

export const wait = command({
  name: "wait",
  operands: "NAME|ID",
  options: { json: ALWAYS_JSON },
  examples: ["cloister wait app; echo $?"],
  async run(io, operands) {
    const registry = openRegistry(io);
    const entry = registry.find(oneOperand(wait, operands, "name or id"));
    const end = await awaitEnd(registry, entry, io.signal);
    io.stdout.write(`${JSON.stringify(endJson(end), null, 2)}\n`);
    try {
      return exitStatus(entry.record.name, end);
    } catch (error) {
      return reportError(error, ["wait"], io, true);
    }
  },
});
