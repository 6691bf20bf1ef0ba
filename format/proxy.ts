/**
 * The header of the PROXY protocol, version 2: who connects to whom, in front of a connection's own bytes.
 * Source: haproxy `doc/proxy-protocol.txt`, section 2.2.
 */
import { canonicalHost } from "./egress.ts";
import { mismatch } from "./failure.ts";
import { concat, offsets, toHex, viewOf } from "./struct.ts";

/** An address as text, IPv4 or IPv6 (RFC 5952), and a port. */
export interface ProxyAddress {
  readonly address: string;
  readonly port: number;
}

/** Undefined in place of it: the sender's own connection (LOCAL), or one without addresses that IP knows. */
export interface ProxyHeader {
  readonly source: ProxyAddress;
  readonly destination: ProxyAddress;
}

const SIGNATURE = Uint8Array.of(0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a);

export const PROXY_PREFIX_SIZE = 16;
/** Big-endian. */
const PREFIX = offsets(
  "PROXY prefix",
  {
    signature: 12,
    command: 1, // version 2 in the high half
    family: 1, //  address family in the high half, transport in the low one
    length: 2, //  bytes that follow: addresses, then TLVs
  },
  PROXY_PREFIX_SIZE,
);
const LOCAL = 0x20;
const PROXY = 0x21;

const UNSPEC = 0x00;
const TCP4 = 0x11;
const TCP6 = 0x21;
const UNIX_STREAM = 0x31;
/** Bytes of the addresses: two of each, then for IP two ports of 2 bytes. */
const ADDRESSES_SIZE: Readonly<Record<number, number>> = {
  [UNSPEC]: 0,
  [TCP4]: 12,
  [TCP6]: 36,
  [UNIX_STREAM]: 216,
};

/** Section 2: a header fits the smallest segment that TCP must carry. With Unix addresses and TLVs there is room to spare. */
export const PROXY_HEADER_MAX = 536;

/** Throws RangeError for what is no address. */
export function encodeProxyHeader(header: ProxyHeader | undefined): Uint8Array {
  if (header === undefined) return concat([prefix(LOCAL, UNSPEC, 0)]);
  const ends = [header.source, header.destination];
  const addresses = ends.map(({ address }) => addressBytes(address));
  // One family for both: an IPv4 address has a place in IPv6 (RFC 4291 §2.5.5.2).
  const isIpv4 = addresses.every((bytes) => bytes.length === 4);
  const same = isIpv4 ? addresses : addresses.map(mapped);
  const ports = ends.map(({ port }) => Uint8Array.of(port >> 8, port & 255));
  const body = concat([...same, ...ports]);
  return concat([prefix(PROXY, isIpv4 ? TCP4 : TCP6, body.length), body]);
}

function prefix(command: number, family: number, length: number): Uint8Array {
  const bytes = new Uint8Array(PROXY_PREFIX_SIZE);
  bytes.set(SIGNATURE, PREFIX.signature);
  bytes[PREFIX.command] = command;
  bytes[PREFIX.family] = family;
  viewOf(bytes).setUint16(PREFIX.length, length);
  return bytes;
}

/**
 * How many bytes follow these PROXY_PREFIX_SIZE ones. Throws E_PROXY_HEADER for what is no header, or would be longer than
 * PROXY_HEADER_MAX.
 */
export function proxyHeaderRest(bytes: Uint8Array): number {
  const signature = bytes.subarray(0, SIGNATURE.length);
  if (bytes.length < PROXY_PREFIX_SIZE || signature.some((byte, index) => byte !== SIGNATURE[index])) {
    throw wrong("signature", toHex(signature), toHex(SIGNATURE));
  }
  const [command, family] = [bytes[PREFIX.command] ?? 0, bytes[PREFIX.family] ?? 0];
  if (command !== LOCAL && command !== PROXY) {
    throw wrong("version and command", hex(command), `${hex(LOCAL)} or ${hex(PROXY)}`);
  }
  // A LOCAL header's family means nothing.
  const least = command === LOCAL ? 0 : ADDRESSES_SIZE[family];
  if (least === undefined) {
    throw wrong("family", hex(family), Object.keys(ADDRESSES_SIZE).map(Number).map(hex).join(", "));
  }
  const length = viewOf(bytes).getUint16(PREFIX.length);
  const most = PROXY_HEADER_MAX - PROXY_PREFIX_SIZE;
  if (length < least || length > most) throw wrong("length", `${length}`, `${least} to ${most}`);
  return length;
}

/** A whole header, and nothing behind it. TLVs are skipped. Throws E_PROXY_HEADER. */
export function decodeProxyHeader(bytes: Uint8Array): ProxyHeader | undefined {
  const rest = proxyHeaderRest(bytes);
  if (bytes.length !== PROXY_PREFIX_SIZE + rest) {
    throw wrong("size", `${bytes.length} bytes`, `${PROXY_PREFIX_SIZE + rest}`);
  }
  const family = bytes[PREFIX.family];
  if (bytes[PREFIX.command] === LOCAL || (family !== TCP4 && family !== TCP6)) return undefined;
  const size = family === TCP4 ? 4 : 16;
  const body = bytes.subarray(PROXY_PREFIX_SIZE);
  const ports = viewOf(body.subarray(2 * size));
  return {
    source: { address: addressText(body.subarray(0, size)), port: ports.getUint16(0) },
    destination: { address: addressText(body.subarray(size, 2 * size)), port: ports.getUint16(2) },
  };
}

function wrong(what: string, found: string, expected: string) {
  return mismatch("E_PROXY_HEADER", `PROXY header: ${what}`, found, expected);
}

function hex(byte: number): string {
  return `0x${byte.toString(16).padStart(2, "0")}`;
}

/** IPv4-mapped ones are IPv4. */
function addressBytes(text: string): Uint8Array {
  // A zone (`fe80::1%eth0`) has no place in a header.
  const host = canonicalHost(text.replace(/%.*$/, ""));
  if (host !== undefined && /^[\d.]+$/.test(host)) return Uint8Array.from(host.split("."), Number);
  if (host?.includes(":") !== true) throw new RangeError(`address: got ${text}, expected IPv4 or IPv6`);
  const [front = [], back = []] = host.split("::").map((half) => (half === "" ? [] : half.split(":")));
  const zeros: string[] = new Array(8 - front.length - back.length).fill("0");
  const bytes = new Uint8Array(16);
  for (const [index, group] of [...front, ...zeros, ...back].entries()) {
    viewOf(bytes).setUint16(2 * index, Number.parseInt(group, 16));
  }
  return bytes;
}

function mapped(bytes: Uint8Array): Uint8Array {
  return bytes.length === 16 ? bytes : concat([new Uint8Array(10), Uint8Array.of(255, 255), bytes]);
}

function addressText(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join(".");
  const view = viewOf(bytes);
  const groups = Array.from({ length: 8 }, (_, index) => view.getUint16(2 * index).toString(16)).join(":");
  return canonicalHost(groups) ?? groups;
}
