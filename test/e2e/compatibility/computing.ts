/** node:crypto, Web Crypto, node:zlib. */
import assert from "node:assert/strict";
import crypto from "node:crypto";
import { promisify } from "node:util";
import zlib from "node:zlib";
import type { Checks } from "./check.ts";

const TEXT = Buffer.from("what is compressed and signed ".repeat(100));

export const computing: Checks = {
  "crypto: hashes, MACs, key derivation, random": async () => {
    const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert.equal(crypto.createHash("sha256").digest("hex"), empty);
    assert.equal(crypto.hash("sha3-256", "").slice(0, 8), "a7ffc6f8");
    assert.equal(crypto.createHmac("sha512", "key").update("text").digest().length, 64);
    assert.equal(((await promisify(crypto.scrypt)("password", "salt", 32)) as Buffer).length, 32);
    assert.equal(crypto.pbkdf2Sync("password", "salt", 1000, 32, "sha256").length, 32);
    assert.equal(crypto.hkdfSync("sha256", "key", "salt", "info", 42).byteLength, 42);
    assert.notDeepEqual(crypto.randomBytes(32), crypto.randomBytes(32));
    assert.match(crypto.randomUUID(), /^[0-9a-f-]{36}$/);
    assert.ok(crypto.randomInt(10) < 10);
  },
  "crypto: ciphers, signatures, key agreement, certificates": () => {
    const [key, iv] = [crypto.randomBytes(32), crypto.randomBytes(12)];
    for (const name of ["aes-256-gcm", "chacha20-poly1305"] as const) {
      const cipher = crypto.createCipheriv(name as "aes-256-gcm", key, iv, { authTagLength: 16 });
      const sealed = Buffer.concat([cipher.update(TEXT), cipher.final()]);
      const decipher = crypto.createDecipheriv(name as "aes-256-gcm", key, iv, { authTagLength: 16 });
      decipher.setAuthTag(cipher.getAuthTag());
      assert.deepEqual(Buffer.concat([decipher.update(sealed), decipher.final()]), TEXT);
    }
    const pairs = [
      crypto.generateKeyPairSync("rsa", { modulusLength: 2048 }),
      crypto.generateKeyPairSync("ec", { namedCurve: "P-384" }),
      crypto.generateKeyPairSync("ec", { namedCurve: "secp256k1" }),
    ];
    for (const { privateKey, publicKey } of pairs) {
      assert.ok(crypto.verify("sha384", TEXT, publicKey, crypto.sign("sha384", TEXT, privateKey)));
    }
    const { privateKey, publicKey } = crypto.generateKeyPairSync("ed25519");
    assert.ok(crypto.verify(null, TEXT, publicKey, crypto.sign(null, TEXT, privateKey)));
    const [a, b] = [crypto.generateKeyPairSync("x25519"), crypto.generateKeyPairSync("x25519")];
    assert.deepEqual(
      crypto.diffieHellman({ privateKey: a.privateKey, publicKey: b.publicKey }),
      crypto.diffieHellman({ privateKey: b.privateKey, publicKey: a.publicKey }),
    );
  },
  "crypto: ML-KEM and ML-DSA": () => {
    const { privateKey, publicKey } = crypto.generateKeyPairSync("ml-kem-768");
    const { ciphertext, sharedKey } = crypto.encapsulate(publicKey);
    assert.deepEqual(crypto.decapsulate(privateKey, ciphertext), sharedKey);
    const signer = crypto.generateKeyPairSync("ml-dsa-65");
    assert.ok(crypto.verify(null, TEXT, signer.publicKey, crypto.sign(null, TEXT, signer.privateKey)));
  },
  "webcrypto: generate, sign, encrypt, derive, wrap": async () => {
    const { subtle } = globalThis.crypto;
    const pair = await subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);
    const how = { name: "ECDSA", hash: "SHA-256" };
    assert.ok(await subtle.verify(how, pair.publicKey, await subtle.sign(how, pair.privateKey, TEXT), TEXT));
    const key = await subtle.generateKey({ name: "AES-GCM", length: 256 }, true, ["encrypt", "decrypt"]);
    const cipher = { name: "AES-GCM", iv: globalThis.crypto.getRandomValues(new Uint8Array(12)) };
    const sealed = await subtle.encrypt(cipher, key, TEXT);
    assert.deepEqual(Buffer.from(await subtle.decrypt(cipher, key, sealed)), TEXT);
    assert.equal((await subtle.exportKey("jwk", pair.publicKey)).crv, "P-256");
  },
  "zlib: gzip, brotli, zstd": () => {
    assert.deepEqual(zlib.gunzipSync(zlib.gzipSync(TEXT)), TEXT);
    assert.deepEqual(zlib.inflateRawSync(zlib.deflateRawSync(TEXT)), TEXT);
    assert.deepEqual(zlib.brotliDecompressSync(zlib.brotliCompressSync(TEXT)), TEXT);
    assert.deepEqual(zlib.zstdDecompressSync(zlib.zstdCompressSync(TEXT)), TEXT);
    assert.equal(zlib.crc32("123456789"), 0xcbf43926);
  },
};
