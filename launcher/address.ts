/** Addresses that no enclave reaches through its parent: they are the parent itself, its link, or the cloud's services. */
import { BlockList, isIPv4 } from "node:net";
import { canonicalHost } from "../format/egress.ts";

const RESERVED: readonly (readonly [network: string, prefix: number, type: "ipv4" | "ipv6"])[] = [
  ["0.0.0.0", 8, "ipv4"], //        this host (RFC 1122 §3.2.1.3); Linux connects to itself
  ["127.0.0.0", 8, "ipv4"], //      loopback
  ["169.254.0.0", 16, "ipv4"], //   link-local (RFC 3927); EC2's metadata, name server and clock
  ["224.0.0.0", 4, "ipv4"], //      multicast
  ["240.0.0.0", 4, "ipv4"], //      reserved, broadcast
  ["::", 128, "ipv6"], //           unspecified
  ["::1", 128, "ipv6"], //          loopback
  ["fe80::", 10, "ipv6"], //        link-local
  ["fd00:ec2::", 32, "ipv6"], //    EC2's metadata, name server and clock over IPv6 (AWS EC2 user guide, IMDS)
  ["ff00::", 8, "ipv6"], //         multicast
];

const reserved = new BlockList();
for (const [network, prefix, type] of RESERVED) reserved.addSubnet(network, prefix, type);

/** IPv6 prefixes whose last 32 bits are an IPv4 address that someone else connects to: NAT64 (RFC 6052), IPv4-compatible. */
const TRANSLATED = new BlockList();
TRANSLATED.addSubnet("64:ff9b::", 96, "ipv6");
TRANSLATED.addSubnet("::", 96, "ipv6");

/** May the proxy connect to this address? Judged after resolution, on the very address that is connected to. */
export function isReachable(address: string): boolean {
  // An IPv4-mapped IPv6 address is the IPv4 address.
  const canonical = canonicalHost(address);
  if (canonical === undefined) return false;
  if (isIPv4(canonical)) return !reserved.check(canonical, "ipv4");
  if (reserved.check(canonical, "ipv6")) return false;
  return !TRANSLATED.check(canonical, "ipv6") || isReachable(embeddedIpv4(canonical));
}

function embeddedIpv4(address: string): string {
  const [high = "0", low = "0"] = address.split(":").slice(-2);
  const [h, l] = [Number.parseInt(high || "0", 16), Number.parseInt(low || "0", 16)];
  return [h >> 8, h & 255, l >> 8, l & 255].join(".");
}
