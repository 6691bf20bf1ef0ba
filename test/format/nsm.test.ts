import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type CborKey, type CborValue, decodeCbor, encodeCbor } from "../../format/cbor.ts";
import {
  decodeNsmRequest,
  decodeNsmResponse,
  encodeNsmRequest,
  encodeNsmResponse,
  type NsmRequest,
  type NsmResponse,
} from "../../format/nsm.ts";
import { toHex } from "../../format/struct.ts";
import { fromHex, refusal, vectorLines } from "./vectors.ts";

const none = { userData: null, nonce: null, publicKey: null };
const requests: Record<string, NsmRequest> = {
  GetRandom: { type: "GetRandom" },
  DescribeNSM: { type: "DescribeNSM" },
  "DescribePCR(0)": { type: "DescribePCR", index: 0 },
  "DescribePCR(31)": { type: "DescribePCR", index: 31 },
  "DescribePCR(300)": { type: "DescribePCR", index: 300 },
  "ExtendPCR(16,010203)": { type: "ExtendPCR", index: 16, data: fromHex("010203") },
  "LockPCR(16)": { type: "LockPCR", index: 16 },
  "LockPCRs(32)": { type: "LockPCRs", range: 32 },
  "Attestation(none)": { type: "Attestation", ...none },
  "Attestation(ud=01,nonce=0203,pk=040506)": {
    ...{ type: "Attestation", userData: fromHex("01"), nonce: fromHex("0203"), publicKey: fromHex("040506") },
  },
};
const responses: Record<string, NsmResponse> = {
  "DescribePCR(lock,00*48)": { type: "DescribePCR", lock: true, data: new Uint8Array(48) },
  "ExtendPCR(11*48)": { type: "ExtendPCR", data: new Uint8Array(48).fill(0x11) },
  LockPCR: { type: "LockPCR" },
  LockPCRs: { type: "LockPCRs" },
  DescribeNSM: {
    type: "DescribeNSM",
    ...{ versionMajor: 1, versionMinor: 0, versionPatch: 0, moduleId: "i-1234-enc5678", maxPcrs: 32 },
    lockedPcrs: Array.from({ length: 16 }, (_, index) => index),
    digest: "SHA384",
  },
  "Attestation(aabb)": { type: "Attestation", document: fromHex("aabb") },
  "GetRandom(00..07)": { type: "GetRandom", random: fromHex("0001020304050607") },
  "Error(InvalidIndex)": { type: "Error", error: "InvalidIndex" },
  "Error(ReadOnlyIndex)": { type: "Error", error: "ReadOnlyIndex" },
};

const lines = vectorLines("nsm-cbor.txt")
  .map((line) => line.split(" ") as [string, string, string])
  .filter(([kind]) => kind === "req" || kind === "rsp");

test("every vector has its value here", () => {
  const named = (kind: string) => lines.filter(([first]) => first === kind).map(([, name]) => name);
  expect(named("req").sort()).toEqual(Object.keys(requests).sort());
  expect(named("rsp").sort()).toEqual(Object.keys(responses).sort());
});

test.each(lines.filter(([kind]) => kind === "req"))("%s %s is AWS's encoding", (_, name, hex) => {
  const request = requests[name] as NsmRequest;
  expect(toHex(encodeNsmRequest(request))).toBe(hex);
  expect(decodeNsmRequest(fromHex(hex))).toEqual(request);
});

test.each(lines.filter(([kind]) => kind === "rsp"))("%s %s is AWS's encoding", (_, name, hex) => {
  const response = responses[name] as NsmResponse;
  expect(toHex(encodeNsmResponse(response))).toBe(hex);
  expect(decodeNsmResponse(fromHex(hex))).toEqual(response);
});

type Fields = ReadonlyMap<CborKey, CborValue>;

test("keys may come in any order: QEMU has its own", () => {
  for (const response of Object.values(responses)) {
    const item = decodeCbor(encodeNsmResponse(response));
    if (!(item instanceof Map)) continue;
    const [name, fields] = [...(item as Fields)][0] ?? ["", null];
    if (!(fields instanceof Map)) continue;
    const reversed = new Map([...(fields as Fields)].reverse());
    expect(decodeNsmResponse(encodeCbor(new Map([[name, reversed]])))).toEqual(response);
  }
});

test("absent optional fields are null", () => {
  expect(decodeNsmRequest(encodeCbor(new Map([["Attestation", new Map()]])))).toEqual({
    type: "Attestation",
    ...none,
  });
});

const variant = (name: string, fields: Record<string, CborValue>) =>
  encodeCbor(new Map([[name, new Map(Object.entries(fields))]]));

describe("refuses", () => {
  test.each<[string, Uint8Array, string]>([
    ["no bytes", new Uint8Array(0), "E_CBOR: offset 0 (0x0): got 0 bytes, expected 1 more"],
    [
      "a number",
      encodeCbor(1),
      "E_NSM: NSM request: got another item, expected a name, or a map of one name",
    ],
    [
      "two commands",
      encodeCbor(
        new Map([
          ["LockPCR", 1],
          ["GetRandom", 1],
        ]),
      ),
      "E_NSM: NSM request: got another item, expected a name, or a map of one name",
    ],
    ["an unknown command", encodeCbor("Explode"), 'E_NSM: NSM request: got "Explode", expected a command'],
    [
      "a command without its fields",
      encodeCbor("LockPCR"),
      "E_NSM: NSM request: index: got nothing, expected 0 to 65535",
    ],
    [
      "an index of text",
      variant("LockPCR", { index: "1" }),
      "E_NSM: NSM request LockPCR: index: got something else, expected 0 to 65535",
    ],
    [
      "a negative index",
      variant("LockPCR", { index: -1 }),
      "E_NSM: NSM request LockPCR: index: got something else, expected 0 to 65535",
    ],
    [
      "an index of 17 bits",
      variant("LockPCR", { index: 65536 }),
      "E_NSM: NSM request LockPCR: index: got something else, expected 0 to 65535",
    ],
    [
      "no data",
      variant("ExtendPCR", { index: 1 }),
      "E_NSM: NSM request ExtendPCR: data: got nothing, expected bytes",
    ],
    [
      "a nonce of text",
      variant("Attestation", { nonce: "x" }),
      "E_NSM: NSM request Attestation: nonce: got something else, expected bytes",
    ],
  ])("request: %s", (_, bytes, message) => {
    expect(refusal(() => decodeNsmRequest(bytes))).toBe(message);
  });

  test.each<[string, Uint8Array, string]>([
    ["an unknown answer", encodeCbor("Explode"), 'E_NSM: NSM response: got "Explode", expected an answer'],
    [
      "an unknown error",
      encodeCbor(new Map([["Error", "Oops"]])),
      "E_NSM: NSM response Error: got another value, expected Success | InvalidArgument | InvalidIndex | InvalidResponse | ReadOnlyIndex | InvalidOperation | BufferTooSmall | InputTooLarge | InternalError",
    ],
    [
      "a lock that is none",
      variant("DescribePCR", { lock: 1, data: new Uint8Array(48) }),
      "E_NSM: NSM response DescribePCR: lock: got something else, expected true or false",
    ],
    [
      "locked PCRs that are none",
      variant("DescribeNSM", {
        version_major: 1,
        version_minor: 0,
        version_patch: 0,
        module_id: "m",
        max_pcrs: 32,
        locked_pcrs: ["0"],
      }),
      "E_NSM: NSM response DescribeNSM: locked_pcrs: got something else, expected an array of 0 to 65535",
    ],
    [
      "a locked PCR of 17 bits",
      variant("DescribeNSM", {
        ...{ version_major: 1, version_minor: 0, version_patch: 0, module_id: "m", max_pcrs: 32 },
        locked_pcrs: [65536],
      }),
      "E_NSM: NSM response DescribeNSM: locked_pcrs: got something else, expected an array of 0 to 65535",
    ],
    [
      "no digest",
      variant("DescribeNSM", {
        version_major: 1,
        version_minor: 0,
        version_patch: 0,
        module_id: "m",
        max_pcrs: 32,
        locked_pcrs: [],
      }),
      "E_NSM: NSM response DescribeNSM: digest: got nothing, expected text",
    ],
  ])("response: %s", (_, bytes, message) => {
    expect(refusal(() => decodeNsmResponse(bytes))).toBe(message);
  });

  test("damaged messages with E_CBOR or E_NSM, or reads them", () => {
    let refused = 0;
    const damage = fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { minLength: 1, maxLength: 3 });
    fc.assert(
      fc.property(fc.constantFrom(...lines.map(([, , hex]) => hex)), damage, (hex, edits) => {
        const bytes = fromHex(hex);
        for (const [offset, value] of edits) bytes[offset % bytes.length] = value;
        for (const decode of [decodeNsmRequest, decodeNsmResponse]) {
          const outcome = refusal(() => decode(bytes));
          expect(outcome).toMatch(/^E_(CBOR|NSM): |^nothing thrown$/);
          if (outcome !== "nothing thrown") refused++;
        }
      }),
      { numRuns: 1000 },
    );
    expect(refused).toBeGreaterThan(500);
  });
});
