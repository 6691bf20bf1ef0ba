import fc from "fast-check";
import { expect, test } from "vitest";
import { BINDING_SIZE, decodeBinding, encodeBinding, hashKey, isBinding } from "../../format/binding.ts";
import { toHex } from "../../format/struct.ts";
import { fromHex, patched, refusal, utf8 } from "./vectors.ts";

const tls = new Uint8Array(32).fill(0x11);
const message = new Uint8Array(32).fill(0x22);

/** "cloister", version 1, then both hashes. */
const VECTORS = [
  { tlsKey: tls, messageKey: message, hex: `636c6f697374657201${"11".repeat(32)}${"22".repeat(32)}` },
  { tlsKey: null, messageKey: message, hex: `636c6f697374657201${"00".repeat(32)}${"22".repeat(32)}` },
  { tlsKey: tls, messageKey: null, hex: `636c6f697374657201${"11".repeat(32)}${"00".repeat(32)}` },
];

test.each(VECTORS)("$hex", ({ hex, ...binding }) => {
  expect(toHex(encodeBinding(binding))).toBe(hex);
  expect(decodeBinding(fromHex(hex))).toEqual(binding);
});

test("a hash is SHA-256 of the key", async () => {
  // FIPS 180-4's own example.
  expect(toHex(await hashKey(utf8("abc")))).toBe(
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
  );
});

const good = encodeBinding({ tlsKey: tls, messageKey: message });

test.each<[string, Uint8Array | null, string]>([
  ["nothing", null, "got none, expected cloister's binding"],
  ["no bytes", new Uint8Array(0), "got 0 bytes, expected cloister's binding"],
  ["an app's own", utf8("cloistered"), "got a binding of version 101, expected version 1"],
  ["something else", utf8("{}"), "got 7b7d, expected cloister's binding"],
  ["another version", patched(good, 8, 2), "got a binding of version 2, expected version 1"],
  ["a byte less", good.subarray(0, -1), `got 72 bytes, expected ${BINDING_SIZE}`],
  ["a byte more", Uint8Array.of(...good, 0), `got 74 bytes, expected ${BINDING_SIZE}`],
])("%s is no binding", (_, bytes, message) => {
  expect(refusal(() => decodeBinding(bytes))).toBe(`E_ATTESTATION_BINDING: user data: ${message}`);
});

test("hashes of another length are refused when written", () => {
  expect(refusal(() => encodeBinding({ tlsKey: tls.subarray(1), messageKey: message }))).toContain(
    "72 bytes",
  );
});

test("any other bytes are refused or read back the same", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), fc.boolean(), (random, prefixed) => {
      const bytes = prefixed ? Uint8Array.of(...good.subarray(0, 9), ...random) : random;
      const refused = refusal(() => expect(encodeBinding(decodeBinding(bytes))).toEqual(bytes));
      if (refused !== "nothing thrown") expect(refused).toMatch(/^E_ATTESTATION_BINDING: /);
      expect(isBinding(bytes)).toBe(toHex(bytes).startsWith("636c6f6973746572"));
    }),
  );
});
