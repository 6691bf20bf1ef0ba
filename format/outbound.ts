/**
 * Outbound connections (enclave → CID_PARENT, PORT_EGRESS): one request a stream, one answer, and after the answer to a
 * connect the bytes of the connection, both ways. The enclave sends nothing more before the answer.
 */
import { mismatch } from "./errors.ts";
import { JsonNode } from "./json.ts";
import { offsets, viewOf } from "./struct.ts";

/** What a request begins with; big-endian, widths in bytes. The host follows, ASCII. */
export const OUTBOUND_HEADER_SIZE = 6;
const HEADER = offsets(
  "outbound request",
  { operation: 1, detail: 2, port: 2, length: 1 },
  OUTBOUND_HEADER_SIZE,
);

const OPERATION = { connect: 1, lookup: 2, resolve: 3 } as const;

/** Record types that can be asked for, by their numbers (IANA, "Resource Record (RR) TYPEs"). */
export const RECORD_TYPES = {
  NS: 2,
  CNAME: 5,
  SOA: 6,
  PTR: 12,
  MX: 15,
  TXT: 16,
  SRV: 33,
  NAPTR: 35,
  TLSA: 52,
  ANY: 255,
  CAA: 257,
} as const;
export type RecordType = keyof typeof RECORD_TYPES;

export type OutboundRequest =
  /** `family`: of the address to connect to where `host` is a name; 0 is either. */
  | { readonly type: "connect"; readonly host: string; readonly port: number; readonly family: 0 | 4 | 6 }
  /** Has this name addresses? */
  | { readonly type: "lookup"; readonly host: string }
  | { readonly type: "resolve"; readonly host: string; readonly record: RecordType };

/** `host` is canonical, and so at most 253 characters of ASCII. */
export function encodeOutboundRequest(request: OutboundRequest): Uint8Array {
  const host = new TextEncoder().encode(request.host);
  const bytes = new Uint8Array(OUTBOUND_HEADER_SIZE + host.length);
  const view = viewOf(bytes);
  view.setUint8(HEADER.operation, OPERATION[request.type]);
  view.setUint16(HEADER.detail, detailOf(request));
  view.setUint16(HEADER.port, request.type === "connect" ? request.port : 0);
  view.setUint8(HEADER.length, host.length);
  bytes.set(host, OUTBOUND_HEADER_SIZE);
  return bytes;
}

function detailOf(request: OutboundRequest): number {
  if (request.type === "connect") return request.family;
  return request.type === "resolve" ? RECORD_TYPES[request.record] : 0;
}

/** Bytes of the host that follow a header. */
export function outboundHostLength(header: Uint8Array): number {
  return viewOf(header).getUint8(HEADER.length);
}

/** The host's bytes as text, which is not canonical yet. Throws E_OUTBOUND for what no enclave of ours sends. */
export function decodeOutboundRequest(bytes: Uint8Array): OutboundRequest {
  if (bytes.length < OUTBOUND_HEADER_SIZE + 1) {
    throw mismatch("E_OUTBOUND", "request", `${bytes.length} bytes`, "a header and a host");
  }
  const view = viewOf(bytes);
  const expected = OUTBOUND_HEADER_SIZE + outboundHostLength(bytes);
  if (bytes.length !== expected)
    throw mismatch("E_OUTBOUND", "request", `${bytes.length} bytes`, `${expected}`);
  const operation = view.getUint8(HEADER.operation);
  const detail = view.getUint16(HEADER.detail);
  const port = view.getUint16(HEADER.port);
  const host = String.fromCharCode(...bytes.subarray(OUTBOUND_HEADER_SIZE));
  switch (operation) {
    case OPERATION.connect:
      if (port === 0) throw mismatch("E_OUTBOUND", "port", port, "1..65535");
      if (detail !== 0 && detail !== 4 && detail !== 6)
        throw mismatch("E_OUTBOUND", "family", detail, "0, 4 or 6");
      return { type: "connect", host, port, family: detail };
    case OPERATION.lookup:
      return { type: "lookup", host };
    case OPERATION.resolve: {
      const record = (Object.keys(RECORD_TYPES) as RecordType[]).find(
        (name) => RECORD_TYPES[name] === detail,
      );
      if (record === undefined) throw mismatch("E_OUTBOUND", "record type", detail, "a known one");
      return { type: "resolve", host, record };
    }
    default:
      throw mismatch("E_OUTBOUND", "operation", operation, "1..3");
  }
}

/** Answer to a connect: i32, 0 or an error as libuv numbers it (a negative errno; -3000 and below are getaddrinfo's). */
export const STATUS_SIZE = 4;
const STATUS_LEAST = -4095;

export function encodeStatus(status: number): Uint8Array {
  const bytes = new Uint8Array(STATUS_SIZE);
  viewOf(bytes).setInt32(0, status);
  return bytes;
}

/** Throws E_OUTBOUND for what is no status. */
export function decodeStatus(bytes: Uint8Array): number {
  const status = viewOf(bytes).getInt32(0);
  if (status <= 0 && status >= STATUS_LEAST) return status;
  throw mismatch("E_OUTBOUND", "status", status, `${STATUS_LEAST}..0`);
}

/** Answer to a lookup: the status, then a bit for each family of which there are addresses. */
export const LOOKUP_ANSWER_SIZE = 5;
const IPV4_BIT = 1;
const IPV6_BIT = 2;

export interface LookupAnswer {
  readonly status: number;
  readonly ipv4: boolean;
  readonly ipv6: boolean;
}

export function encodeLookupAnswer({ status, ipv4, ipv6 }: LookupAnswer): Uint8Array {
  return Uint8Array.of(...encodeStatus(status), (ipv4 ? IPV4_BIT : 0) | (ipv6 ? IPV6_BIT : 0));
}

/** Throws E_OUTBOUND. */
export function decodeLookupAnswer(bytes: Uint8Array): LookupAnswer {
  const families = bytes[STATUS_SIZE] ?? 0;
  return {
    status: decodeStatus(bytes),
    ipv4: (families & IPV4_BIT) !== 0,
    ipv6: (families & IPV6_BIT) !== 0,
  };
}

/** Answer to a resolve: u32 length, then as many bytes of JSON. */
export const RESOLVE_LENGTH_SIZE = 4;
export const RESOLVE_ANSWER_MAX = 64 * 1024;

/** `records` as `dns.promises.resolve` gives them; `error`: a code such as ENODATA. */
export type ResolveAnswer = { readonly records: unknown } | { readonly error: string };

/** Records that do not fit are an error: EBADRESP. */
export function encodeResolveAnswer(answer: ResolveAnswer): Uint8Array {
  const json = new TextEncoder().encode(JSON.stringify(answer));
  if (json.length > RESOLVE_ANSWER_MAX) return encodeResolveAnswer({ error: "EBADRESP" });
  const bytes = new Uint8Array(RESOLVE_LENGTH_SIZE + json.length);
  viewOf(bytes).setUint32(0, json.length);
  bytes.set(json, RESOLVE_LENGTH_SIZE);
  return bytes;
}

/** Bytes of JSON that follow. Throws E_OUTBOUND for more than RESOLVE_ANSWER_MAX. */
export function resolveAnswerLength(bytes: Uint8Array): number {
  const length = viewOf(bytes).getUint32(0);
  if (length <= RESOLVE_ANSWER_MAX) return length;
  throw mismatch("E_OUTBOUND", "records", `${length} bytes`, `at most ${RESOLVE_ANSWER_MAX}`);
}

/** The records are the parent's word, whatever their shape. Throws E_OUTBOUND. */
export function decodeResolveAnswer(json: Uint8Array): ResolveAnswer {
  const node = JsonNode.parse("E_OUTBOUND", "records", json);
  if (!node.get("error").present) return { records: node.get("records").any() };
  const error = node.get("error").string();
  if (/^[A-Z]{1,32}$/.test(error)) return { error };
  throw node.get("error").wrong("an error code");
}
