/**
 * `dns.lookup` and `dns.resolve*`, with callbacks and with promises. Names of the allow-list are asked of the parent, whose
 * word it is; the answer to an address is one that stands for the name. Other names are refused at once, and those of the
 * loopback answered as ever.
 */
import { domainToASCII } from "node:url";
import { canonicalHost, isLoopback } from "../format/egress.ts";
import { mismatch } from "../format/failure.ts";
import type { RecordType } from "../format/outbound.ts";
import { binding, type NameRequest, UV } from "./binding.ts";
import type { Egress } from "./egress.ts";

/** Resolver methods of Node's c-ares channel. */
const QUERIES: Readonly<Record<string, RecordType>> = {
  queryAny: "ANY",
  queryCaa: "CAA",
  queryCname: "CNAME",
  queryMx: "MX",
  queryNaptr: "NAPTR",
  queryNs: "NS",
  queryPtr: "PTR",
  querySoa: "SOA",
  querySrv: "SRV",
  queryTlsa: "TLSA",
  queryTxt: "TXT",
};

/** From here on, in this thread. */
export function routeNames(egress: Egress): void {
  const cares = binding("cares_wrap");
  const { getaddrinfo, DNS_ORDER_IPV6_FIRST } = cares;
  cares.getaddrinfo = (request, name, family, hints, order) => {
    const host = canonicalName(name);
    if (host !== undefined && isLoopback(host)) return getaddrinfo(request, name, family, hints, order);
    const ipv6First = order === DNS_ORDER_IPV6_FIRST;
    return ask(egress, request, host, async (known) => {
      const { status, addresses } = await addressesOf(egress, known, family, ipv6First);
      return status === 0 ? [null, addresses] : [status];
    });
  };
  const { prototype } = cares.ChannelWrap;
  for (const [method, family] of [
    ["queryA", 4],
    ["queryAaaa", 6],
  ] as const) {
    prototype[method] = (request, name) =>
      ask(egress, request, canonicalName(name), async (host) => {
        const { status, addresses } = await addressesOf(egress, host, family, false);
        // A time to live of 0: what stands for the name is not to be kept as if it were the address.
        return status === 0 ? [null, addresses, addresses.map(() => 0)] : ["ENOTFOUND"];
      });
  }
  for (const [method, record] of Object.entries(QUERIES)) {
    prototype[method] = (request, name) =>
      ask(egress, request, canonicalName(name), async (host) => {
        const answer = await egress.outbound.resolve({ type: "resolve", host, record });
        return "error" in answer ? [answer.error] : [null, checked(egress, host, record, answer.records)];
      });
  }
  prototype.getHostByAddr = (request, address) => {
    const named = egress.names.find(canonicalHost(address) ?? "");
    process.nextTick(() =>
      request.oncomplete(...((named === undefined ? ["ENOTFOUND"] : [null, [named.name]]) as Outcome)),
    );
    return 0;
  };
}

type Outcome = Parameters<NameRequest["oncomplete"]>;

/** Answer a request, always later. Returns 0, which says so. */
function ask(
  egress: Egress,
  request: NameRequest,
  host: string | undefined,
  answer: (host: string) => Promise<Outcome>,
): 0 {
  const reject = (error: Error) => process.nextTick(() => (request.callback ?? request.reject)?.(error));
  if (host === undefined) process.nextTick(() => request.oncomplete(UV.EAI_NONAME));
  else if (!egress.knows(host)) reject(egress.denyName(host));
  else {
    answer(host).then(
      (outcome) => process.nextTick(() => request.oncomplete(...outcome)),
      (error: unknown) => reject(egress.fail(`resolve ${host}`, error)),
    );
  }
  return 0;
}

/**
 * Records in the shape that Node gives them, as far as their callers rely on it: all but SOA are lists. Addresses among those
 * of ANY are replaced by what stands for the name. Throws E_OUTBOUND.
 */
function checked(egress: Egress, host: string, record: RecordType, records: unknown): unknown {
  if (record === "SOA") {
    if (typeof records === "object" && records !== null && !Array.isArray(records)) return records;
    throw mismatch("E_OUTBOUND", "SOA", typeof records, "an object");
  }
  if (!Array.isArray(records)) throw mismatch("E_OUTBOUND", record, typeof records, "a list");
  if (record !== "ANY") return records;
  return records.map((entry: { type?: unknown } | null) => {
    const family = entry?.type === "A" ? 4 : entry?.type === "AAAA" ? 6 : undefined;
    return family === undefined ? entry : { ...entry, address: egress.names.addressOf(host, family), ttl: 0 };
  });
}

async function addressesOf(
  egress: Egress,
  host: string,
  family: number,
  ipv6First: boolean,
): Promise<{ readonly status: number; readonly addresses: readonly string[] }> {
  const { status, ipv4, ipv6 } = await egress.outbound.lookup(host);
  if (status < 0) return { status, addresses: [] };
  const addresses: string[] = [];
  if (ipv4 && family !== 6) addresses.push(egress.names.addressOf(host, 4));
  if (ipv6 && family !== 4) addresses.push(egress.names.addressOf(host, 6));
  if (ipv6First) addresses.reverse();
  return { status: addresses.length === 0 ? UV.EAI_NONAME : 0, addresses };
}

/** Names of other scripts as DNS has them. */
function canonicalName(name: string): string | undefined {
  return canonicalHost(/^[\0-\x7f]*$/.test(name) ? name : domainToASCII(name));
}
