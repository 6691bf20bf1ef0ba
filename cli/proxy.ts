import { once } from "node:events";
import { resolve } from "node:path";
import { EGRESS_EXPECTED, parseEgressRule } from "../format/egress.ts";
import { CloisterError } from "../format/errors.ts";
import { openImage } from "../launcher/image.ts";
import { openEgress, parentVsock } from "../launcher/index.ts";
import { command, QUIET } from "./command.ts";
import { ALLOW_LOCAL, parseLocalEgress } from "./local.ts";
import { parseInteger, refusal } from "./operand.ts";
import { printable } from "./printable.ts";

export const proxy = command({
  name: "proxy",
  operands: "[FILE]",
  options: {
    cid: { type: "string", value: "N", description: "The enclave's CID" },
    allow: {
      type: "string",
      multiple: true,
      value: "HOST:PORT",
      description: "What it may reach, besides the list of FILE",
    },
    "allow-local": ALLOW_LOCAL,
    quiet: QUIET,
  },
  examples: ["cloister proxy --cid 16 app.eif", 'cloister proxy --cid 16 --allow "*.amazonaws.com:443"'],
  async run(io, operands, values) {
    const [file, ...others] = operands;
    if (values.cid === undefined)
      throw new CloisterError("E_USAGE", "cloister proxy: found no --cid, expected one");
    if (others.length > 0) {
      throw new CloisterError("E_USAGE", `cloister proxy: found ${operands.length} files, expected one`);
    }
    const cid = parseInteger("--cid", values.cid, 4, 0xffff_fffe);
    const rules = [...(await rulesOf(io.directory, file)), ...(values.allow ?? []).map(parseAllow)];
    if (rules.length === 0) {
      throw new CloisterError(
        "E_USAGE",
        "cloister proxy: found nothing to allow, expected --allow or a file with a list",
      );
    }
    using carrier = await openEgress(parentVsock, {
      rules,
      local: (values["allow-local"] ?? []).map(parseLocalEgress),
      onRefusal: (reason) => io.stderr.write(`cloister: ${printable(reason)}\n`),
    });
    carrier.serve(cid);
    if (values.quiet !== true) {
      io.stderr.write(`cloister: carrying the connections of CID ${cid} to ${rules.join(", ")}\n`);
    }
    if (!io.signal.aborted) await once(io.signal, "abort");
    return 0;
  },
});

async function rulesOf(directory: string, file: string | undefined): Promise<readonly string[]> {
  if (file === undefined) return [];
  await using image = await openImage(resolve(directory, file));
  return image.egress;
}

function parseAllow(rule: string): string {
  if (parseEgressRule(rule) !== undefined) return rule;
  throw refusal("--allow", rule, EGRESS_EXPECTED);
}
