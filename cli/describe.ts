import { command, oneOperand } from "./command.ts";

export const describe = command({
  name: "describe",
  summary: "Show what an EIF holds: version, PCRs, signature, metadata",
  operands: "FILE",
  options: {
    json: { type: "boolean", description: "One JSON value with nitro-cli describe-eif's keys" },
  },
  examples: ["cloister describe app.eif", "cloister describe app.eif --json | jq .Measurements.PCR0"],
  async run(io, operands, { json }) {
    const path = oneOperand(describe, operands, "EIF file");
    const description = await describeFile(path);
    io.stdout.write(json === true ? `${JSON.stringify(description, null, 2)}\n` : table(description));
    return 0;
  },
});
