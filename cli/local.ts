/** Destinations on this machine that an enclave may reach through its parent all the same. */
import { canonicalHost, egressRuleFor, isAddress } from "../format/egress.ts";
import type { LocalEgress } from "../launcher/index.ts";
import { refusal } from "./operand.ts";

/** The option, as `run` and `proxy` have it. */
export const ALLOW_LOCAL = {
  type: "string",
  multiple: true,
  value: "HOST:PORT[=ADDR:PORT]",
  description: "Let it reach a host of its egress list on this machine or link, or at this address",
} as const;

/**
 * `db.example:5432=127.0.0.1:15432` → a destination of the list that is on this machine; without `=` it is where the name
 * leads.
 */
export function parseLocalEgress(text: string): LocalEgress {
  const [name = "", place] = text.split("=");
  const rule = parseHostPort(name);
  const to = place === undefined ? undefined : parseHostPort(place);
  const isPlace = place === undefined || (to !== undefined && isAddress(to.host));
  if (rule === undefined || !isPlace) {
    throw refusal("--allow-local", text, "HOST:PORT[=ADDR:PORT], such as db.example:5432=127.0.0.1:5432");
  }
  return { ...rule, ...(to !== undefined && { to: { address: to.host, port: to.port } }) };
}

function parseHostPort(text: string): { readonly host: string; readonly port: number } | undefined {
  const [, bracketed, plain, digits = ""] = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = canonicalHost(bracketed ?? plain ?? "");
  const port = Number(digits);
  return host !== undefined && port >= 1 && port <= 65_535 ? { host, port } : undefined;
}

/** As `parseLocalEgress` reads it. */
export function localEgressText({ host, port, to }: LocalEgress): string {
  const name = egressRuleFor(host, port);
  return to === undefined ? name : `${name}=${egressRuleFor(to.address, to.port)}`;
}
