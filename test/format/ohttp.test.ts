import { createDecipheriv, hkdfSync } from "node:crypto";
import { AEAD_AES_128_GCM, CipherSuite, KDF_HKDF_SHA256, KEM_DHKEM_X25519_HKDF_SHA256 } from "hpke";
import { beforeAll, describe, expect, test } from "vitest";
import {
  createMessageKey,
  decodeKeyConfig,
  encodeKeyConfig,
  type MessageKey,
  messageKeyId,
  openRequest,
  REQUEST_OVERHEAD,
  sealRequest,
} from "../../format/ohttp.ts";
import { concat, toHex } from "../../format/struct.ts";
import { fromHex, patched, refusal, rejection, utf8 } from "./vectors.ts";

/** RFC 9458 appendix A. */
const RFC = {
  privateKey: "3c168975674b2fa8e465970b79c8dcf09f1c741626480bd4c6162fc5b6a98e1a",
  publicKey: "31e1f05a740102115220e9af918f738674aec95f54db6e04eb705aae8e798155",
  request: "00034745540568747470730b6578616d706c652e636f6d012f",
  message:
    "010020000100014b28f881333e7c164ffc499ad9796f877f4e1051ee6d31bad19dec96c208b472" +
    "6374e469135906992e1268c594d2a10c695d858c40a026e7965e7d86b83dd440b2c0185204b4d63525",
  secret: "62d87a6ba569ee81014c2641f52bea36",
  response: "c789e7151fcba46158ca84b04464910d86f9013e404feea014e7be4a441f234f857fbd",
};

async function rfcKey(): Promise<MessageKey> {
  const suite = new CipherSuite(KEM_DHKEM_X25519_HKDF_SHA256, KDF_HKDF_SHA256, AEAD_AES_128_GCM);
  const publicKey = await suite.DeserializePublicKey(fromHex(RFC.publicKey));
  const privateKey = await suite.DeserializePrivateKey(fromHex(RFC.privateKey));
  return { id: 1, config: encodeKeyConfig(1, fromHex(RFC.publicKey)), pair: { publicKey, privateKey } };
}

let key: MessageKey;
beforeAll(async () => {
  key = await createMessageKey(7);
});

describe("RFC 9458 appendix A", () => {
  test("the key configuration, with one of its two suites", () => {
    const config = fromHex(`010020${RFC.publicKey}000400010001`);
    expect(toHex(encodeKeyConfig(1, fromHex(RFC.publicKey)))).toBe(toHex(config));
    expect(decodeKeyConfig(config)).toEqual({ id: 1, publicKey: fromHex(RFC.publicKey) });
  });

  test("the request", async () => {
    const opened = await openRequest(await rfcKey(), fromHex(RFC.message));
    expect(toHex(opened.plaintext)).toBe(RFC.request);
    expect(toHex(opened.encapsulated)).toBe(RFC.message.slice(14, 78));
  });

  test("the response, and ours, as node:crypto reads them with the RFC's secret", async () => {
    const encapsulated = fromHex(RFC.message).subarray(7, 39);
    const read = (response: Uint8Array) => {
      const salt = concat([encapsulated, response.subarray(0, 16)]);
      const derive = (label: string, size: number) =>
        new Uint8Array(hkdfSync("sha256", fromHex(RFC.secret), salt, label, size));
      const decipher = createDecipheriv("aes-128-gcm", derive("key", 16), derive("nonce", 12));
      decipher.setAuthTag(response.subarray(-16));
      return concat([decipher.update(response.subarray(16, -16)), decipher.final()]);
    };
    expect(toHex(read(fromHex(RFC.response)))).toBe("0140c8");
    const { seal } = await openRequest(await rfcKey(), fromHex(RFC.message));
    expect(toHex(read(await seal(fromHex("0140c8"))))).toBe("0140c8");
  });
});

test("a request and its response, and nobody else's", async () => {
  const sealed = await sealRequest(key.config, utf8("question"));
  expect(sealed.message.length).toBe(REQUEST_OVERHEAD + 8);
  expect(messageKeyId(sealed.message)).toBe(7);
  const opened = await openRequest(key, sealed.message);
  expect(new TextDecoder().decode(opened.plaintext)).toBe("question");
  const response = await opened.seal(utf8("answer"));
  expect(new TextDecoder().decode(await sealed.open(response))).toBe("answer");
  const other = await sealRequest(key.config, utf8("question"));
  expect(toHex(other.message)).not.toBe(toHex(sealed.message));
  expect(await rejection(other.open(response))).toMatch(/^E_MESSAGE: encrypted response: got another key's/);
  expect(await rejection(openRequest(await createMessageKey(7), sealed.message))).toMatch(/^E_MESSAGE: /);
});

test("no flipped bit and no cut of a request or a response is read", async () => {
  const sealed = await sealRequest(key.config, utf8("q"));
  const response = await (await openRequest(key, sealed.message)).seal(utf8("a"));
  for (const [bytes, read] of [
    [sealed.message, (changed: Uint8Array) => openRequest(key, changed)],
    [response, (changed: Uint8Array) => sealed.open(changed)],
  ] as const) {
    for (let offset = 0; offset < bytes.length; offset++) {
      const flipped = patched(bytes, offset, (bytes[offset] ?? 0) ^ (1 << (offset % 8)));
      // The highest bit of an X25519 point does not count (RFC 7748 §5), but HPKE hashes the bytes.
      expect(await rejection(read(flipped))).toMatch(/^E_MESSAGE: /);
      expect(await rejection(read(bytes.subarray(0, offset)))).toMatch(/^E_MESSAGE: /);
    }
    expect(await rejection(read(concat([bytes, Uint8Array.of(0)])))).toMatch(/^E_MESSAGE: /);
  }
});

test.each([
  ["no bytes", ""],
  ["a byte less", `010020${RFC.publicKey}0004000100`],
  ["another KEM", `010010${RFC.publicKey}000400010001`],
  ["another AEAD", `010020${RFC.publicKey}000400010003`],
  ["two suites", `010020${RFC.publicKey}00080001000100010003`],
])("a key configuration of %s is refused", async (_, hex) => {
  expect(refusal(() => decodeKeyConfig(fromHex(hex)))).toMatch(/^E_MESSAGE: encrypted key configuration: /);
  expect(await rejection(sealRequest(fromHex(hex), utf8("q")))).toMatch(/^E_MESSAGE: /);
});

/** RFC 7748 §6.1, RFC 9180 §7.1.4: points of small order, for which every secret is zero. */
test.each(["00".repeat(32), `01${"00".repeat(31)}`, `ecff${"ff".repeat(29)}7f`])(
  "the weak point %s is refused, as key and as encapsulated key",
  async (point) => {
    expect(await rejection(sealRequest(encodeKeyConfig(7, fromHex(point)), utf8("q")))).toMatch(
      /^E_MESSAGE: /,
    );
    const { message } = await sealRequest(key.config, utf8("q"));
    message.set(fromHex(point), 7);
    expect(await rejection(openRequest(key, message))).toMatch(/^E_MESSAGE: /);
  },
);
