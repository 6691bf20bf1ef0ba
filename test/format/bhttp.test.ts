import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type BinaryRequest,
  decodeBinaryRequest,
  decodeBinaryResponse,
  encodeBinaryRequest,
  encodeBinaryResponse,
  encodeVarint,
} from "../../format/bhttp.ts";
import { toHex } from "../../format/struct.ts";
import { fromHex, patched, refusal, utf8 } from "./vectors.ts";

/** RFC 9000 appendix A.1, and the largest that takes eight bytes exactly. */
test.each([
  [2 ** 53 - 1, "c01fffffffffffff"],
  [494_878_333, "9d7f3e7d"],
  [15_293, "7bbd"],
  [37, "25"],
])("the number %d", (value, hex) => expect(toHex(encodeVarint(value))).toBe(hex));

const request: BinaryRequest = {
  method: "GET",
  scheme: "https",
  authority: "www.example.com",
  path: "/hello.txt",
  fields: [
    ["user-agent", "curl/7.16.3 libcurl/7.16.3 OpenSSL/0.9.7l zlib/1.2.3"],
    ["host", "www.example.com"],
    ["accept-language", "en, mi"],
  ],
  content: new Uint8Array(0),
};
/** RFC 9292 §5.1: the same request, known-length. */
const REQUEST =
  "00034745540568747470730f7777772e6578616d706c652e636f6d0a2f68656c6c6f2e747874406c0a757365722d6167656e74" +
  "346375726c2f372e31362e33206c69626375726c2f372e31362e33204f70656e53534c2f302e392e376c207a6c69622f312e322e33" +
  "04686f73740f7777772e6578616d706c652e636f6d0f6163636570742d6c616e677561676506656e2c206d69";

describe("RFC 9292", () => {
  test("a request", () => {
    expect(decodeBinaryRequest(fromHex(`${REQUEST}0000`))).toEqual(request);
    // Ours leaves out the trailers, which may be.
    expect(toHex(encodeBinaryRequest(request))).toBe(`${REQUEST}00`);
  });

  test("a request cut after its control data, and after its fields", () => {
    // RFC 9458 appendix A.
    const bare = fromHex("00034745540568747470730b6578616d706c652e636f6d012f");
    expect(decodeBinaryRequest(bare)).toEqual({
      ...{ method: "GET", scheme: "https", authority: "example.com", path: "/" },
      ...{ fields: [], content: new Uint8Array(0) },
    });
    expect(decodeBinaryRequest(fromHex(REQUEST))).toEqual(request);
  });

  test("a response, with padding", () => {
    expect(decodeBinaryResponse(fromHex("0140c8"))).toMatchObject({ status: 200, fields: [] });
    // Content and a trailer, as in §5.2.
    const hex = `0140c800${"1d"}${toHex(utf8("This content contains CRLF.\r\n"))}0d07747261696c6572047465787400000000`;
    expect(new TextDecoder().decode(decodeBinaryResponse(fromHex(hex)).content)).toBe(
      "This content contains CRLF.\r\n",
    );
  });

  test("informational responses before it", () => {
    // As §5.2 has them: 102 with one field, 103 with none, then 200.
    const hex = "01406608027878047465787440670040c8000161";
    expect(decodeBinaryResponse(fromHex(hex))).toMatchObject({ status: 200, content: utf8("a") });
  });
});

describe("is refused", () => {
  test.each([
    ["nothing", "", "framing indicator: got the end"],
    ["a response", "0140c8", "framing indicator: got 1, expected 0"],
    ["indeterminate length", "02034745540568747470730b", "framing indicator: got 2, expected 0"],
    ["a method that ends early", "0009474554", "method: got 3 bytes, expected 9"],
    ["a length of 2^62 - 1", "00ffffffffffffffff", "method: got 0 bytes, expected 4611686018427388000"],
    ["a number that ends early", "00c0", "method: got 1 bytes, expected 8"],
    ["a field without value", "000147056874747073017801 2f020161", "field value: got the end"],
    ["fields that end early", "000147056874747073017801 2f05", "field section: got 0 bytes"],
    ["padding that is none", "000147056874747073017801 2f00000001", "padding: got other bytes"],
  ])("%s", (_, hex, message) => {
    expect(refusal(() => decodeBinaryRequest(fromHex(hex.replace(" ", ""))))).toContain(
      `E_MESSAGE: binary HTTP: ${message}`,
    );
  });

  test.each([
    ["a status below 100", "0132", "status: got 50, expected 100 to 599"],
    ["a status above 599", "014258", "status: got 600, expected 100 to 599"],
    ["300 informational ones", `01${"406400".repeat(300)}40c8`, "informational responses: got more"],
    [
      "300 fields",
      `0140c8${toHex(encodeVarint(600))}${"0000".repeat(300)}`,
      "fields: got more, expected 256 at most",
    ],
  ])("a response of %s", (_, hex, message) => {
    expect(refusal(() => decodeBinaryResponse(fromHex(hex)))).toContain(message);
  });

  test("text that HTTP cannot carry, when written", () => {
    expect(() => encodeBinaryRequest({ ...request, path: "/日本" })).toThrow(RangeError);
    expect(() => encodeBinaryRequest({ ...request, path: "/😀" })).toThrow(RangeError);
  });
});

const latin1 = fc.string({ unit: fc.integer({ min: 0, max: 255 }).map((code) => String.fromCharCode(code)) });
const fields = fc.array(fc.tuple(latin1, latin1), { maxLength: 20 });
const content = fc.uint8Array({ maxLength: 20_000 });

test("reads back what was written", () => {
  const requests = fc.record({
    ...{ method: latin1, scheme: latin1, authority: latin1, path: latin1 },
    ...{ fields, content },
  });
  fc.assert(
    fc.property(requests, (any) => {
      expect(decodeBinaryRequest(encodeBinaryRequest(any))).toEqual(any);
    }),
  );
  const responses = fc.record({ status: fc.integer({ min: 200, max: 599 }), fields, content });
  fc.assert(
    fc.property(responses, (any) => {
      expect(decodeBinaryResponse(encodeBinaryResponse(any))).toEqual(any);
    }),
  );
});

test("survives any bytes, flipped and cut", () => {
  const whole = encodeBinaryRequest({ ...request, content: new Uint8Array(100) });
  let read = 0;
  for (let offset = 0; offset < whole.length; offset++) {
    for (const bytes of [
      whole.subarray(0, offset),
      patched(whole, offset, 0xff),
      patched(whole, offset, 0),
    ]) {
      const refused = refusal(() => decodeBinaryRequest(bytes));
      if (refused === "nothing thrown") read++;
      else expect(refused).toMatch(/^E_MESSAGE: /);
    }
  }
  // Cut between sections, or changed within texts.
  expect(read).toBeGreaterThan(200);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      for (const decode of [decodeBinaryRequest, decodeBinaryResponse]) {
        const refused = refusal(() => decode(bytes));
        if (refused !== "nothing thrown") expect(refused).toMatch(/^E_MESSAGE: /);
      }
    }),
  );
});
