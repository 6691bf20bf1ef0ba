import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  decodeLookupAnswer,
  decodeOutboundRequest,
  decodeResolveAnswer,
  decodeStatus,
  encodeLookupAnswer,
  encodeOutboundRequest,
  encodeResolveAnswer,
  encodeStatus,
  OUTBOUND_HEADER_SIZE,
  type OutboundRequest,
  outboundHostLength,
  RECORD_TYPES,
  RESOLVE_ANSWER_MAX,
  RESOLVE_LENGTH_SIZE,
  type RecordType,
  resolveAnswerLength,
} from "../../format/outbound.ts";
import { toHex } from "../../format/struct.ts";
import { refusal, utf8 } from "./vectors.ts";

const hex = (text: string) => Uint8Array.from(Buffer.from(text.replaceAll(" ", ""), "hex"));

/** By hand from the table in format/outbound.ts. */
const VECTORS: readonly [OutboundRequest, string][] = [
  [{ type: "connect", host: "a.b", port: 443, family: 0 }, "01 0000 01bb 03 612e62"],
  [{ type: "connect", host: "a.b", port: 1, family: 6 }, "01 0006 0001 03 612e62"],
  [{ type: "lookup", host: "a" }, "02 0000 0000 01 61"],
  [{ type: "resolve", host: "a", record: "CAA" }, "03 0101 0000 01 61"],
];

describe("requests", () => {
  test.each(VECTORS)("%j", (request, text) => {
    expect(toHex(encodeOutboundRequest(request))).toBe(text.replaceAll(" ", ""));
    expect(decodeOutboundRequest(hex(text))).toEqual(request);
    expect(outboundHostLength(hex(text))).toBe(request.host.length);
  });

  test.each([
    ["", "request: got 0 bytes, expected a header and a host"],
    ["01 0000 01bb 00", "request: got 6 bytes, expected a header and a host"],
    ["01 0000 01bb 03 6161", "request: got 8 bytes, expected 9"],
    ["01 0000 01bb 01 6161", "request: got 8 bytes, expected 7"],
    ["00 0000 01bb 01 61", "operation: got 0, expected 1..3"],
    ["04 0000 01bb 01 61", "operation: got 4, expected 1..3"],
    ["01 0000 0000 01 61", "port: got 0, expected 1..65535"],
    ["01 0005 0001 01 61", "family: got 5, expected 0, 4 or 6"],
    ["03 0001 0000 01 61", "record type: got 1, expected a known one"],
  ])("%s is refused", (text, message) => {
    expect(refusal(() => decodeOutboundRequest(hex(text)))).toBe(`E_OUTBOUND: ${message}`);
  });

  test("read back, whatever the host", () => {
    const host = fc.string({ minLength: 1, maxLength: 253, unit: "grapheme-ascii" });
    const port = fc.integer({ min: 1, max: 65_535 });
    const family = fc.constantFrom(0, 4, 6);
    const records = Object.keys(RECORD_TYPES) as RecordType[];
    const request: fc.Arbitrary<OutboundRequest> = fc.oneof(
      fc.record({ type: fc.constant("connect"), host, port, family }),
      fc.record({ type: fc.constant("lookup"), host }),
      fc.record({ type: fc.constant("resolve"), host, record: fc.constantFrom(...records) }),
    );
    fc.assert(
      fc.property(request, (one) => {
        expect(decodeOutboundRequest(encodeOutboundRequest(one))).toEqual(one);
      }),
    );
  });

  test("any bytes are read or refused", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        try {
          const request = decodeOutboundRequest(bytes);
          expect(request.host.length).toBe(bytes.length - OUTBOUND_HEADER_SIZE);
        } catch (error) {
          expect(error).toMatchObject({ code: "E_OUTBOUND" });
        }
      }),
    );
  });
});

describe("answers", () => {
  test("statuses are 0 or libuv's numbers", () => {
    for (const status of [0, -1, -111, -3008, -4095]) expect(decodeStatus(encodeStatus(status))).toBe(status);
    for (const status of [1, -4096, 2 ** 31 - 1, -(2 ** 31)]) {
      expect(refusal(() => decodeStatus(encodeStatus(status)))).toContain(
        `E_OUTBOUND: status: got ${status}`,
      );
    }
  });

  test.each([
    [{ status: 0, ipv4: true, ipv6: false }, "0000000001"],
    [{ status: 0, ipv4: true, ipv6: true }, "0000000003"],
    [{ status: -3008, ipv4: false, ipv6: false }, "fffff44000"],
  ])("%j", (answer, text) => {
    expect(toHex(encodeLookupAnswer(answer))).toBe(text);
    expect(decodeLookupAnswer(hex(text))).toEqual(answer);
  });

  test("records are JSON of bounded length", () => {
    const encoded = encodeResolveAnswer({ records: [{ exchange: "mx", priority: 1 }] });
    expect(resolveAnswerLength(encoded)).toBe(encoded.length - RESOLVE_LENGTH_SIZE);
    const json = encoded.subarray(RESOLVE_LENGTH_SIZE);
    expect(decodeResolveAnswer(json)).toEqual({ records: [{ exchange: "mx", priority: 1 }] });
    const long = encodeResolveAnswer({ records: "x".repeat(RESOLVE_ANSWER_MAX) });
    expect(decodeResolveAnswer(long.subarray(RESOLVE_LENGTH_SIZE))).toEqual({ error: "EBADRESP" });
  });

  test.each([
    ["00010001", "records: got 65537 bytes, expected at most 65536"],
    ["ffffffff", "records: got 4294967295 bytes, expected at most 65536"],
  ])("length %s is refused", (text, message) => {
    expect(refusal(() => resolveAnswerLength(hex(text)))).toBe(`E_OUTBOUND: ${message}`);
  });

  test.each([
    ["", "records: got"],
    ["[]", "records: got an array of 0, expected an object"],
    ["{}", "records: records: got nothing, expected a value"],
    ['{"error":7}', "records: error: got 7, expected a string"],
    ['{"error":"e no"}', 'records: error: got "e no", expected an error code'],
  ])("%j is refused", (json, message) => {
    expect(refusal(() => decodeResolveAnswer(utf8(json)))).toContain(`E_OUTBOUND: ${message}`);
  });
});
