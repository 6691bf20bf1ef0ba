import { CloisterError } from "../format/errors.ts";
import { followRing } from "../launcher/follow.ts";
import { consolePath } from "../launcher/registry.ts";
import { command, oneOperand } from "./command.ts";
import { endSignal } from "./logs.ts";
import { openRegistry } from "./order.ts";
import { printable } from "./printable.ts";

export const console = command({
  name: "console",
  operands: "NAME|ID",
  options: {
    past: { type: "boolean", description: "Only what it said so far" },
    raw: { type: "boolean", description: "Control characters too, on a terminal; elsewhere they always are" },
  },
  examples: ["cloister console app", "cloister console --past app > console.txt"],
  async run(io, operands, { past, raw }) {
    const registry = openRegistry(io);
    const entry = registry.find(oneOperand(console, operands, "name or id"));
    const { name, debug } = entry.record;
    if (!debug) throw new CloisterError("E_NOT_DEBUG", `${name}: got production mode, expected debug mode`);
    const over = past === true ? AbortSignal.abort() : endSignal(registry, entry, io.signal);
    const isShown = io.stdout.isTTY === true && raw !== true;
    for await (const chunk of followRing(consolePath(entry.folder), over)) {
      io.stdout.write(isShown ? consoleText(chunk) : chunk);
    }
    return 0;
  },
});

/** Lines as a terminal may have them; a serial console ends them with CR LF. */
function consoleText(chunk: Buffer): string {
  return chunk.toString("latin1").replaceAll("\r", "").split("\n").map(printable).join("\n");
}
