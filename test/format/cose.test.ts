import { createPublicKey } from "node:crypto";
import { describe, expect, test } from "vitest";
import { CborTag, decodeCbor, encodeCbor } from "../../format/cbor.ts";
import { type Curve, decodeCertificate, type PublicKey } from "../../format/certificate.ts";
import {
  COSE_SIGN1_TAG,
  decodeCoseSign1,
  encodeCoseSign1,
  encodeProtectedHeader,
  verifyCoseSign1,
} from "../../format/cose.ts";
import { toHex } from "../../format/struct.ts";
import { fromHex, patched, refusal, vector, vectorLines } from "./vectors.ts";

/** Public keys of cose-sign1.txt: aws-nitro-enclaves-cose, `src/sign.rs`, tests. */
const keys: Record<string, { curve: Curve; x: string; y: string }> = {
  ec256: {
    curve: "P-256",
    x: "9ff7423a1aace5f3e33dfaeda2c7744e3d15c2a4f6382386c93fa60c1bdb260c",
    y: "3489e6b132f36e5ece948e73bd44231a1c3d0dacf566712a44fe8a9835d5b6fe",
  },
  ec384: {
    curve: "P-384",
    x: "5a829f62f2f4f095c0e922719285b4b981c677912870a413137a5d7319916fa8584a6036951d06ffeae99ca73ab1a2dc",
    y: "e1b76e08cb20d6afcea7423f8b49ec841dde6f210a6174750bf8136a315494224df153184557a6c29a1d7994804f604c",
  },
  ec512: {
    curve: "P-521",
    x: "004365ee31a93b6e69b2c895890aaae14194cd84601bbb59587ad08ab59605227dc7b34288e6471b0f06050763b88b4fb017f279c86030b0069100401e4016a3be8a",
    y: "00792d772bf93cd965027df2df02d3f99ea1c4ecd18c20738ebae66854fd3afcd2ea4e902bcd37a4d2a5c639caee71513acaf7d8f7ffa11042257c5d8c6974095713",
  },
};

function keyOf(name: string): PublicKey {
  const { curve, x, y } = keys[name] ?? { curve: "P-256", x: "", y: "" };
  const base64url = (hex: string) => Buffer.from(hex, "hex").toString("base64url");
  const key = createPublicKey({
    key: { kty: "EC", crv: curve, x: base64url(x), y: base64url(y) },
    format: "jwk",
  });
  return { curve, spki: new Uint8Array(key.export({ type: "spki", format: "der" })) };
}

const documents = vectorLines("cose-sign1.txt").map((line) => {
  const [name = "", , hex = ""] = line.split(" ");
  // The P-256 one has its tag in three bytes, where one would do; the next test is about that.
  return { name, hex, bytes: fromHex(hex.replace(/^d90012/, "d2")), key: keyOf(name) };
});

test("a tag in three bytes is one encoding too many", () => {
  expect(documents.map(({ name }) => name)).toEqual(["ec256", "ec384", "ec512"]);
  expect(refusal(() => decodeCoseSign1(fromHex(documents[0]?.hex ?? "")))).toBe(
    "E_CBOR: offset 0 (0x0): got 18 in 2 bytes, expected its shortest form",
  );
});

describe.each(documents)("$name", ({ bytes, key }) => {
  const message = decodeCoseSign1(bytes);

  test("verifies with its key alone", async () => {
    expect(new TextDecoder().decode(message.payload)).toMatch(/^It is a truth universally acknowledged/);
    expect(await verifyCoseSign1(message, key)).toBe(true);
    const others = documents.filter((document) => document.key !== key);
    expect(await Promise.all(others.map((other) => verifyCoseSign1(message, other.key)))).toEqual([
      false,
      false,
    ]);
  });

  test("does not verify when anything signed is changed", async () => {
    const { payload, signature, protectedHeader } = message;
    const last = signature.length - 1;
    expect(await verifyCoseSign1({ ...message, payload: patched(payload, 0, 0x69) }, key)).toBe(false);
    expect(
      await verifyCoseSign1(
        { ...message, signature: patched(signature, last, (signature[last] ?? 0) ^ 1) },
        key,
      ),
    ).toBe(false);
    expect(await verifyCoseSign1({ ...message, signature: signature.subarray(1) }, key)).toBe(false);
    expect(await verifyCoseSign1({ ...message, signature: new Uint8Array(signature.length) }, key)).toBe(
      false,
    );
    const longer = Uint8Array.of(...protectedHeader, 0);
    expect(await verifyCoseSign1({ ...message, protectedHeader: longer }, key)).toBe(false);
    expect(await verifyCoseSign1({ ...message, algorithm: -1 }, key)).toBe(false);
    expect(await verifyCoseSign1(message, { curve: undefined, spki: key.spki })).toBe(false);
    expect(await verifyCoseSign1(message, { curve: key.curve, spki: key.spki.subarray(1) })).toBe(false);
  });
});

test("a document that Nitro hardware signed verifies with its certificate", async () => {
  for (const name of ["qos-genesis", "real-aws-2"]) {
    const message = decodeCoseSign1(vector(`attestation/${name}.bin`));
    expect(toHex(message.protectedHeader)).toBe("a1013822");
    const document = decodeCbor(message.payload) as ReadonlyMap<string, Uint8Array>;
    const leaf = decodeCertificate(document.get("certificate") ?? new Uint8Array(0));
    expect(await verifyCoseSign1(message, leaf.publicKey)).toBe(true);
  }
});

test("encodes as AWS does", () => {
  const bytes = vector("attestation/qos-genesis.bin");
  expect(encodeCoseSign1(decodeCoseSign1(bytes))).toEqual(bytes);
  expect([-7, -35, -36].map((algorithm) => toHex(encodeProtectedHeader(algorithm)))).toEqual([
    ...["a10126", "a1013822", "a1013823"],
  ]);
});

test.each([
  ["a map", encodeCbor(new Map()), "COSE_Sign1: got object, expected an array of 4"],
  ["three elements", encodeCbor([1, 2, 3]), "COSE_Sign1: got an array of 3, expected an array of 4"],
  [
    "another tag",
    encodeCbor(new CborTag(17, [1, 2, 3, 4])),
    "COSE_Sign1: got object, expected an array of 4",
  ],
  [
    "two tags",
    encodeCbor(new CborTag(COSE_SIGN1_TAG, new CborTag(COSE_SIGN1_TAG, [1, 2, 3, 4]))),
    "COSE_Sign1: got object, expected an array of 4",
  ],
  ["a protected header of text", fromHex("8460a04040"), "protected header: got string, expected bytes"],
  [
    "an unprotected header of bytes",
    fromHex("8443a10126404040"),
    "unprotected header: got object, expected a map",
  ],
  ["a detached payload", fromHex("8443a10126a0f640"), "payload: got null, expected bytes"],
  ["a signature of text", fromHex("8443a10126a04060"), "signature: got string, expected bytes"],
  [
    "a protected header that is a bare algorithm",
    fromHex("844126a04040"),
    "protected header: got undefined, expected a map with an algorithm number",
  ],
  [
    "no algorithm",
    fromHex("8441a0a04040"),
    "protected header: got undefined, expected a map with an algorithm number",
  ],
  [
    "an algorithm by name",
    fromHex("8444a1016145a04040"),
    "protected header: got string, expected a map with an algorithm number",
  ],
])("refuses %s", (_, bytes, message) => {
  expect(refusal(() => decodeCoseSign1(bytes))).toBe(`E_COSE: ${message}`);
});
