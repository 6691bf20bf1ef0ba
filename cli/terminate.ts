import { terminateEnclave } from "../launcher/client.ts";
import { ALWAYS_JSON, command } from "./command.ts";
import { endEach } from "./stop.ts";

export const terminate = command({
  name: "terminate",
  operands: "NAME|ID…",
  options: { all: { type: "boolean", description: "All that run" }, json: ALWAYS_JSON },
  examples: ["cloister terminate app", "cloister terminate --all"],
  run: (io, operands, { all }) => endEach(io, "terminate", operands, all === true, terminateEnclave),
});
