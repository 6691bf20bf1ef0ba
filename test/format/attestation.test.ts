import { decode as cborgDecode } from "cborg";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type AttestationDocument,
  CA_BUNDLE_MAX,
  CERTIFICATE_MAX,
  DOCUMENT_MAX,
  decodeAttestation,
  decodeEnvelope,
  encodeAttestation,
  NONCE_MAX,
  PAYLOAD_MAX,
  PUBLIC_KEY_MAX,
  signAttestation,
  USER_DATA_MAX,
} from "../../format/attestation.ts";
import { createKeyPair } from "../../format/authority.ts";
import { CborTag, type CborValue, decodeCbor, encodeCbor } from "../../format/cbor.ts";
import { type CoseSign1, decodeCoseSign1, encodeProtectedHeader } from "../../format/cose.ts";
import { concat, toHex } from "../../format/struct.ts";
import { fromHex, patched, refusal, vector, vectorLines } from "./vectors.ts";

const documents = ["qos-genesis", "real-aws-2"].map((name) => vector(`attestation/${name}.bin`));
const [first = new Uint8Array(0)] = documents;

const nsmDocument: AttestationDocument = {
  moduleId: "m",
  digest: "SHA384",
  timestamp: 1657117102484,
  pcrs: new Map([
    [0, new Uint8Array(48)],
    [31, new Uint8Array(48).fill(1)],
  ]),
  certificate: Uint8Array.of(9),
  caBundle: [Uint8Array.of(8), Uint8Array.of(7)],
  publicKey: null,
  userData: Uint8Array.of(6),
  nonce: null,
};

test("the payload is what AWS's nsm-api writes", () => {
  const line = vectorLines("nsm-cbor.txt").find((text) => text.includes("6d6f64756c655f6964616d")) ?? "";
  const golden = fromHex(line.split(" ").at(-1) ?? "");
  expect(toHex(encodeAttestation(nsmDocument))).toBe(toHex(golden));
  expect(decodeAttestation(golden)).toEqual(nsmDocument);
});

describe.each(documents.map((bytes) => ({ bytes })))("a document that hardware made", ({ bytes }) => {
  const message = decodeEnvelope(bytes);

  test("is encoded again byte for byte", () => {
    expect(encodeAttestation(decodeAttestation(message.payload))).toEqual(new Uint8Array(message.payload));
  });

  test("has the fields that another decoder sees", () => {
    const options = { useMaps: true, strict: true };
    const other = cborgDecode(message.payload, options) as Map<string, unknown>;
    const { pcrs, certificate, caBundle, moduleId, timestamp, ...rest } = decodeAttestation(message.payload);
    expect(moduleId).toBe(other.get("module_id"));
    expect(timestamp).toBe(other.get("timestamp"));
    expect(pcrs).toEqual(other.get("pcrs"));
    expect(pcrs.size).toBe(16);
    expect([...caBundle, certificate]).toEqual([...(other.get("cabundle") as []), other.get("certificate")]);
    expect(rest).toEqual({
      digest: "SHA384",
      publicKey: other.get("public_key"),
      userData: other.get("user_data"),
      nonce: other.get("nonce"),
    });
  });

  test("answers any truncation with a refusal", () => {
    for (let length = 0; length < bytes.length; length += 7) {
      expect(refusal(() => decodeEnvelope(bytes.subarray(0, length)))).toMatch(/^E_(?:CBOR|COSE)/);
    }
    for (let length = 0; length < message.payload.length; length += 7) {
      expect(refusal(() => decodeAttestation(message.payload.subarray(0, length)))).toMatch(
        /^E_(?:CBOR|ATT)/,
      );
    }
  });
});

test("decodes what it encodes", () => {
  const bytes = (most: number, least = 0) => fc.uint8Array({ minLength: least, maxLength: most });
  const register = bytes(48, 48);
  const document = fc.record<AttestationDocument>({
    moduleId: fc.string({ minLength: 1, unit: "grapheme" }),
    digest: fc.constant("SHA384"),
    timestamp: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
    pcrs: fc
      .uniqueArray(fc.nat(31), { minLength: 1 })
      .chain((indexes) =>
        fc
          .tuple(...indexes.map((i) => register.map((r) => [i, r] as const)))
          .map((entries) => new Map(entries)),
      ),
    certificate: bytes(CERTIFICATE_MAX, 1),
    caBundle: fc.array(bytes(100, 1), { minLength: 1, maxLength: CA_BUNDLE_MAX }),
    publicKey: fc.option(bytes(PUBLIC_KEY_MAX, 1)),
    userData: fc.option(bytes(USER_DATA_MAX)),
    nonce: fc.option(bytes(NONCE_MAX)),
  });
  fc.assert(
    fc.property(document, (value) => {
      expect(decodeAttestation(encodeAttestation(value))).toEqual(value);
    }),
  );
});

test("answers any bytes with a document or a refusal", () => {
  const payload = encodeAttestation(nsmDocument);
  let accepted = 0;
  fc.assert(
    fc.property(fc.nat(payload.length - 1), fc.nat(255), (offset, byte) => {
      const code = refusal(() => {
        decodeAttestation(patched(payload, offset, byte));
        accepted++;
      }).split(":")[0];
      expect(["nothing thrown", "E_CBOR", "E_ATTESTATION_FORMAT"]).toContain(code);
    }),
    { numRuns: 3000 },
  );
  expect(accepted).toBeGreaterThan(0);
});

/** The payload's fields with some replaced; undefined takes one away. */
function payload(changes: Readonly<Record<string, CborValue | undefined>>): Uint8Array {
  const fields = new Map(decodeCbor(encodeAttestation(nsmDocument)) as ReadonlyMap<string, CborValue>);
  for (const [name, value] of Object.entries(changes)) {
    if (value === undefined) fields.delete(name);
    else fields.set(name, value);
  }
  return encodeCbor(fields);
}

const bytes = (length: number) => new Uint8Array(length);
const registers = (...indexes: number[]) => new Map(indexes.map((index) => [index, bytes(48)]));
const FORMAT = "E_ATTESTATION_FORMAT";

test.each([
  [
    { public_key: undefined, user_data: undefined, nonce: undefined },
    { publicKey: null, userData: null },
  ],
  [
    { user_data: bytes(0), nonce: bytes(0) },
    { userData: bytes(0), nonce: bytes(0) },
  ],
  [{ user_data: bytes(1024), nonce: bytes(1024), public_key: bytes(1024) }, { publicKey: bytes(1024) }],
  [{ certificate: bytes(1024), cabundle: [bytes(1024)] }, { caBundle: [bytes(1024)] }],
  [{ cabundle: Array(8).fill(bytes(1)) }, { caBundle: Array(8).fill(bytes(1)) }],
  [{ pcrs: registers(...Array(32).keys()) }, { pcrs: registers(...Array(32).keys()) }],
])("accepts the edges %#", (changes, expected) => {
  expect(decodeAttestation(payload(changes))).toMatchObject(expected);
});

test.each<[string, Record<string, CborValue | undefined>, string | RegExp]>([
  ["no module_id", { module_id: undefined }, "module_id: got nothing, expected text"],
  ["module_id of bytes", { module_id: bytes(3) }, "module_id: got 3 bytes, expected text"],
  ["an empty module_id", { module_id: "" }, "module_id: got text, expected text"],
  ["no digest", { digest: undefined }, 'digest: got nothing, expected "SHA384"'],
  ["SHA-256", { digest: "SHA256" }, 'digest: got "SHA256", expected "SHA384"'],
  [
    "a digest with an escape",
    { digest: "\u009b2J\u202e" },
    'digest: got "\\u009b2J\\u202e", expected "SHA384"',
  ],
  ["no timestamp", { timestamp: undefined }, "timestamp: got nothing, expected milliseconds since 1970"],
  ["timestamp zero", { timestamp: 0 }, "timestamp: got 0, expected milliseconds since 1970"],
  ["a negative timestamp", { timestamp: -1 }, "timestamp: got -1, expected milliseconds since 1970"],
  [
    "a timestamp past 2^53",
    { timestamp: 2n ** 60n },
    /^timestamp: got \d+, expected milliseconds since 1970$/,
  ],
  ["a timestamp as text", { timestamp: "1" }, "timestamp: got text, expected milliseconds since 1970"],
  ["no pcrs", { pcrs: undefined }, "pcrs: got nothing, expected a map"],
  ["pcrs in an array", { pcrs: [bytes(48)] }, "pcrs: got an array, expected a map"],
  ["empty pcrs", { pcrs: new Map() }, "pcrs: got 0 of them, expected 1 to 32"],
  ["33 pcrs", { pcrs: registers(...Array(33).keys()) }, "pcrs: got 33 of them, expected 1 to 32"],
  ["PCR32", { pcrs: registers(0, 32) }, "pcrs: got index 32, expected 0 to 31"],
  ["PCR-1", { pcrs: registers(-1) }, "pcrs: got index -1, expected 0 to 31"],
  ["a named register", { pcrs: new Map([["0", bytes(48)]]) }, 'pcrs: got index "0", expected 0 to 31'],
  ["a short register", { pcrs: new Map([[7, bytes(47)]]) }, "pcrs: PCR7: got 47 bytes, expected 48"],
  ["a long register", { pcrs: new Map([[7, bytes(49)]]) }, "pcrs: PCR7: got 49 bytes, expected 48"],
  ["a register of SHA-256", { pcrs: new Map([[0, bytes(32)]]) }, "pcrs: PCR0: got 32 bytes, expected 48"],
  ["a register of text", { pcrs: new Map([[0, "a"]]) }, "pcrs: PCR0: got text, expected 48 bytes"],
  [
    "a tagged register",
    { pcrs: new Map([[0, new CborTag(64, bytes(48))]]) },
    /^pcrs: PCR0: got a tagged item/,
  ],
  ["no certificate", { certificate: undefined }, "certificate: got nothing, expected 1 to 1024 bytes"],
  ["a null certificate", { certificate: null }, "certificate: got null, expected 1 to 1024 bytes"],
  ["an empty certificate", { certificate: bytes(0) }, "certificate: got 0 bytes, expected 1 to 1024"],
  ["a long certificate", { certificate: bytes(1025) }, "certificate: got 1025 bytes, expected 1 to 1024"],
  ["no cabundle", { cabundle: undefined }, "cabundle: got nothing, expected an array"],
  ["an empty cabundle", { cabundle: [] }, "cabundle: got 0 certificates, expected 1 to 8"],
  [
    "nine in the cabundle",
    { cabundle: Array(9).fill(bytes(1)) },
    /^cabundle: got 9 certificates, expected 1 to 8$/,
  ],
  ["text in the cabundle", { cabundle: [bytes(1), "a"] }, "cabundle[1]: got text, expected 1 to 1024 bytes"],
  ["nothing in the cabundle", { cabundle: [bytes(0)] }, "cabundle[0]: got 0 bytes, expected 1 to 1024"],
  [
    "too much in the cabundle",
    { cabundle: [bytes(1025)] },
    "cabundle[0]: got 1025 bytes, expected 1 to 1024",
  ],
  ["an empty public_key", { public_key: bytes(0) }, "public_key: got 0 bytes, expected 1 to 1024"],
  ["a long public_key", { public_key: bytes(1025) }, "public_key: got 1025 bytes, expected 1 to 1024"],
  ["public_key of text", { public_key: "a" }, "public_key: got text, expected 1 to 1024 bytes"],
  ["long user_data", { user_data: bytes(1025) }, "user_data: got 1025 bytes, expected 0 to 1024"],
  ["user_data as a number", { user_data: 1 }, "user_data: got 1, expected 0 to 1024 bytes"],
  ["a long nonce", { nonce: bytes(1025) }, "nonce: got 1025 bytes, expected 0 to 1024"],
  ["a nonce in an array", { nonce: [1, 2] }, "nonce: got an array, expected 0 to 1024 bytes"],
  ["a false nonce", { nonce: false }, "nonce: got false, expected 0 to 1024 bytes"],
  ["an unknown field", { extra: 1 }, 'payload: got the field "extra", expected only known ones'],
])("refuses %s", (_, changes, message) => {
  const got = refusal(() => decodeAttestation(payload(changes)));
  if (typeof message === "string") expect(got).toBe(`${FORMAT}: ${message}`);
  else expect(got.replace(`${FORMAT}: `, "")).toMatch(message);
});

test.each([
  ["no payload", bytes(0), `${FORMAT}: payload: got 0 bytes, expected 1 to 16384`],
  ["too much payload", bytes(PAYLOAD_MAX + 1), `${FORMAT}: payload: got 16385 bytes, expected 1 to 16384`],
  ["an array", encodeCbor([1]), `${FORMAT}: payload: got an array, expected a map`],
  [
    "a tagged map",
    encodeCbor(new CborTag(1, new Map())),
    `${FORMAT}: payload: got a tagged item, expected a map`,
  ],
  [
    "a numbered field",
    encodeCbor(new Map([[1, 1]])),
    `${FORMAT}: payload: got the field 1, expected only known ones`,
  ],
])("refuses %s", (_, input, message) => expect(refusal(() => decodeAttestation(input))).toBe(message));

test("every field twice is refused, and so is an indefinite length", () => {
  const [head = 0, ...rest] = encodeAttestation(nsmDocument);
  const fields = decodeCbor(encodeAttestation(nsmDocument)) as ReadonlyMap<string, CborValue>;
  for (const [name, value] of fields) {
    const twice = concat([Uint8Array.of(head + 1, ...rest), encodeCbor(name), encodeCbor(value)]);
    expect(refusal(() => decodeAttestation(twice))).toMatch(`key "${name}" again`);
  }
  const indefinite = Uint8Array.of(0xbf, ...rest, 0xff);
  expect(refusal(() => decodeAttestation(indefinite))).toMatch("E_CBOR: offset 0 (0x0)");
  const trailing = Uint8Array.of(head, ...rest, 0);
  expect(refusal(() => decodeAttestation(trailing))).toMatch("got 1 more bytes, expected the end");
});

describe("decodeEnvelope", () => {
  const message = decodeCoseSign1(first);
  const envelope = (changes: Partial<CoseSign1>, unprotected = new Map<number, CborValue>()) => {
    const { protectedHeader, payload, signature } = { ...message, ...changes };
    return encodeCbor([protectedHeader, unprotected, payload, signature]);
  };

  test("takes what hardware made", () => {
    expect(envelope({})).toEqual(first);
    expect(decodeEnvelope(first)).toEqual(message);
  });

  test.each<[string, Uint8Array, string | RegExp]>([
    [
      "ES256",
      envelope({ protectedHeader: encodeProtectedHeader(-7) }),
      /got a10126, expected a1013822: ES384$/,
    ],
    [
      "ES512",
      envelope({ protectedHeader: encodeProtectedHeader(-36) }),
      /got a1013823, expected a1013822: ES384$/,
    ],
    [
      "EdDSA",
      envelope({ protectedHeader: encodeProtectedHeader(-8) }),
      /got a10127, expected a1013822: ES384$/,
    ],
    ["QEMU's algorithm", envelope({ protectedHeader: encodeProtectedHeader(-1) }), /got a10120, expected/],
    ["more in the header", envelope({ protectedHeader: fromHex("a201382204413a") }), /got a201382204413a/],
    ["a header of a number", envelope({ protectedHeader: fromHex("3822") }), /^E_COSE: protected header/],
    ["an empty header", envelope({ protectedHeader: bytes(0) }), /^E_CBOR/],
    ["a short signature", envelope({ signature: bytes(95) }), /signature: got 95 bytes, expected 96$/],
    ["a long signature", envelope({ signature: bytes(97) }), /signature: got 97 bytes, expected 96$/],
    ["an unprotected header", envelope({}, new Map([[4, bytes(1)]])), /got a tag or an unprotected header/],
    ["tag 18", concat([Uint8Array.of(0xd2), first]), /got a tag or an unprotected header, expected neither/],
    ["tag 61", concat([Uint8Array.of(0xd8, 61), first]), /^E_COSE/],
    ["base64", new TextEncoder().encode(Buffer.from(first).toString("base64")), /^E_C/],
    ["JSON", new TextEncoder().encode('{"document":""}'), /^E_C/],
    ["nothing", bytes(0), /^E_CBOR/],
    ["bytes behind it", concat([first, Uint8Array.of(0)]), /^E_CBOR.*got 1 more bytes, expected the end$/],
    [
      "too much",
      bytes(DOCUMENT_MAX + 1),
      "E_ATTESTATION_FORMAT: document: got 16493 bytes, expected at most 16492",
    ],
  ])("refuses %s", (_, input, expected) => {
    expect(refusal(() => decodeEnvelope(input))).toMatch(expected);
  });

  test("the largest payload makes the largest document", () => {
    const largest = envelope({ payload: bytes(PAYLOAD_MAX) });
    expect(largest.length).toBe(DOCUMENT_MAX);
    expect(decodeEnvelope(largest).payload.length).toBe(PAYLOAD_MAX);
  });
});

test("signs as hardware does", async () => {
  const { privateKey } = await createKeyPair(false);
  const bytes = await signAttestation(nsmDocument, privateKey);
  expect(decodeAttestation(decodeEnvelope(bytes).payload)).toEqual(nsmDocument);
  const head = toHex(bytes.subarray(0, 7));
  expect(head).toBe(toHex(first.subarray(0, 7)));
  const rsa = {
    name: "RSA-PSS",
    modulusLength: 2048,
    publicExponent: Uint8Array.of(1, 0, 1),
    hash: "SHA-384",
  };
  const other = await crypto.subtle.generateKey(rsa, false, ["sign", "verify"]);
  await expect(signAttestation(nsmDocument, other.privateKey)).rejects.toThrow("expected one for ECDSA");
});
