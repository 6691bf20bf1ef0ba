import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import {
  type AttestationDocument,
  decodeAttestation,
  decodeEnvelope,
  encodeAttestation,
  signAttestation,
} from "../../format/attestation.ts";
import { encodeCbor } from "../../format/cbor.ts";
import { decodeCoseSign1, encodeCoseSign1 } from "../../format/cose.ts";
import { DEVELOPMENT_VALUE } from "../../format/development.ts";
import { concat, toHex } from "../../format/struct.ts";
import {
  AttestationError,
  AWS_ROOT_G1,
  fingerprint,
  type VerifyOptions,
  verifyAttestation,
} from "../../format/verify.ts";
import {
  type Chain,
  createChain,
  documentOf,
  NONCE,
  NOW,
  optionsFor,
  POLICY,
  PUBLIC_KEY,
  register,
  signed,
  USER_DATA,
} from "./authority.ts";
import { fromHex, patched, vector } from "./vectors.ts";

const MARK = fromHex(DEVELOPMENT_VALUE);

/** Every how many-th bit of the hardware's documents is flipped; VERIFY_EVERY_BIT=1 flips each. */
const STRIDE = process.env.VERIFY_EVERY_BIT === undefined ? 61 : 1;

const real = ["qos-genesis", "real-aws-2"].map((name) => {
  const bytes = vector(`attestation/${name}.bin`);
  const { timestamp, pcrs } = decodeAttestation(decodeEnvelope(bytes).payload);
  const values = [0, 1, 2].map((index) => [`PCR${index}`, toHex(pcrs.get(index) ?? register(0))]);
  const options: VerifyOptions = {
    pcrs: Object.fromEntries(values),
    dangerouslySkipNonce: true,
    now: timestamp + 1000,
  };
  return { name, bytes, options, timestamp };
});

/** `CODE step` of the AttestationError; anything else passes through. */
async function verdict(bytes: Uint8Array, options: VerifyOptions): Promise<string> {
  try {
    const { steps } = await verifyAttestation(bytes, options);
    return steps.every(({ status }) => status === "passed") ? "verified" : "verified, not all of it";
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
    const last = error.steps.at(-1);
    expect(last).toEqual(expect.objectContaining({ name: error.step, status: "failed" }));
    expect([error.got, error.expected]).toEqual([last?.got, last?.expected]);
    expect(error.steps.slice(0, -1).some(({ status }) => status === "failed")).toBe(false);
    return `${error.code.replace("E_ATTESTATION_", "")} ${error.message}`;
  }
}

test("AWS's root has the fingerprint that AWS publishes", async () => {
  expect(await fingerprint(vector("attestation/aws-root-g1.der"))).toBe(AWS_ROOT_G1);
});

describe.each(real)("$name, made by hardware", ({ bytes, options, timestamp }) => {
  test("verifies", async () => {
    const { document, steps } = await verifyAttestation(bytes, options);
    expect(document).toEqual(decodeAttestation(decodeEnvelope(bytes).payload));
    expect(steps.map(({ name, status }) => `${name} ${status}`)).toEqual([
      ...[
        "envelope passed",
        "fields passed",
        "root passed",
        "chain passed",
        "signature passed",
        "time passed",
      ],
      ...["mode passed", "build passed"],
      ...["nonce skipped", "registers passed", "public key skipped", "user data skipped"],
    ]);
  });

  test("does not verify with a bit flipped", async () => {
    const bits = Array.from({ length: Math.ceil((bytes.length * 8) / STRIDE) }, (_, i) => i * STRIDE);
    const steps = new Set<string>();
    for (const bit of bits) {
      const flipped = patched(bytes, bit >> 3, (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7)));
      const result = await verdict(flipped, options);
      expect(result, `bit ${bit}`).not.toMatch(/^verified/);
      steps.add(result.split(" ")[0] ?? "");
    }
    expect(bits.length).toBeGreaterThan(500);
    expect([...steps].sort()).toEqual(expect.arrayContaining(["CHAIN", "FORMAT", "ROOT", "SIGNATURE"]));
  }, 3_600_000);

  test("does not verify cut short, anywhere", async () => {
    for (let length = 0; length < bytes.length; length++) {
      expect(await verdict(bytes.subarray(0, length), options)).toMatch(/^FORMAT envelope/);
    }
  });

  test("does not verify today, years later, nor before it was made", async () => {
    const at = (now: number, maxAge = 300_000) => verdict(bytes, { ...options, now, maxAge });
    expect(await verifyAttestation(bytes, { ...options, now: timestamp + 300_000 })).toBeDefined();
    expect(await at(timestamp + 300_001)).toMatch(
      /^TIME time: timestamp: got 20\S+Z, expected 20\S+Z to 20\S+Z$/,
    );
    expect(await at(timestamp - 60_001)).toMatch(/^(?:CHAIN|TIME) /);
    expect(await at(timestamp + 4 * 3_600_000, 1e12)).toMatch(
      /^CHAIN chain: certificate: validity at this clock/,
    );
    expect(await at(Date.UTC(2060, 0), 1e13)).toMatch(
      /^CHAIN chain: cabundle\[0\]: validity at this clock's time/,
    );
  });

  test("does not verify against other registers, or a nonce", async () => {
    const { dangerouslySkipNonce: _, ...rest } = options as {
      dangerouslySkipNonce: true;
      pcrs: typeof POLICY;
    };
    expect(await verdict(bytes, { ...options, pcrs: POLICY } as VerifyOptions)).toMatch(
      /^PCRS registers: releases/,
    );
    expect(await verdict(bytes, { ...rest, nonce: NONCE })).toMatch(
      /^NONCE nonce: nonce: got none, expected 0102/,
    );
  });
});

test("no splice of two documents verifies", async () => {
  const [a, b] = real.map(({ bytes, options }) => ({ message: decodeCoseSign1(bytes), options }));
  if (a === undefined || b === undefined) throw new Error("BUG: two documents");
  const [one, other] = [a, b].map(({ message }) => decodeAttestation(message.payload));
  if (one === undefined || other === undefined) throw new Error("BUG: two documents");
  const spliced = { ...a.message, payload: b.message.payload };
  expect(await verdict(encodeCoseSign1(spliced), b.options)).toMatch(/^SIGNATURE/);
  for (const field of Object.keys(one) as (keyof AttestationDocument)[]) {
    const mixed = { ...one, [field]: other[field] };
    const payload = encodeAttestation(mixed);
    if (toHex(payload) === toHex(a.message.payload)) continue;
    expect(await verdict(encodeCoseSign1({ ...a.message, payload }), a.options), field).not.toMatch(
      /^verified/,
    );
  }
  const [first, second] = real.map(({ bytes }) => bytes) as [Uint8Array, Uint8Array];
  for (let cut = 1; cut < second.length; cut += 97) {
    const joined = concat([first.subarray(0, cut), second.subarray(cut)]);
    if (toHex(joined) === toHex(second)) continue;
    expect(await verdict(joined, b.options), `cut at ${cut}`).not.toMatch(/^verified/);
  }
});

describe("a document under a root of our own", () => {
  let chain: Chain;
  let bytes: Uint8Array;
  let options: ReturnType<typeof optionsFor>;

  beforeAll(async () => {
    chain = await createChain();
    bytes = await signed(chain);
    options = optionsFor(chain);
  });

  test("verifies, every step of it", async () => {
    const all = { ...options, publicKey: PUBLIC_KEY, userData: USER_DATA };
    expect(await verdict(bytes, all)).toBe("verified");
    const { document, steps } = await verifyAttestation(bytes, all);
    expect(document).toEqual(documentOf(chain));
    expect(Object.fromEntries(steps.map(({ name, got }) => [name, got]))).toEqual({
      envelope: `ES384, ${bytes.length} bytes`,
      fields: 'module "i-0123456789abcdef0-enc0123456789abcdef", 16 registers',
      root: chain.fingerprint,
      chain: '"root" → "region" → "zone" → "instance" → "enclave"',
      signature: 'by "enclave"',
      time: "2026-03-04T05:06:07Z",
      mode: "measured",
      build: "not marked",
      nonce: toHex(NONCE),
      registers: `PCR0 ${"10".repeat(48)}, PCR1 ${"11".repeat(48)}, PCR2 ${"12".repeat(48)}`,
      "public key": toHex(PUBLIC_KEY),
      "user data": toHex(USER_DATA),
    });
  });

  test("a development image is accepted where that is said, and other uses of its register always", async () => {
    const marked = await signed(chain, { pcrs: new Map([...documentPcrs(), [31, MARK]]) });
    const { steps } = await verifyAttestation(marked, { ...options, dangerouslyAllowDevelopment: true });
    expect(steps.find(({ name }) => name === "build")).toMatchObject({ status: "skipped" });
    expect(await verdict(marked, { ...options, dangerouslyAllowDevelopment: false })).toMatch(/^DEVELOPMENT/);
    const other = new Map([...documentPcrs(), [31, register(1)]]);
    expect(await verdict(await signed(chain, { pcrs: other }), options)).toMatch(/^verified/);
  });

  test("is refused by default: its root is not AWS's", async () => {
    const { roots: _, ...rest } = options;
    expect(await verdict(bytes, rest)).toBe(
      `ROOT root: cabundle[0]: SHA-256: got ${chain.fingerprint}, expected ${AWS_ROOT_G1}`,
    );
  });

  test("is refused under the wrong one of two of our roots, and accepted under either of both", async () => {
    const { fingerprint: other } = await createChain();
    expect(await verdict(bytes, { ...options, roots: [other] })).toMatch(/^ROOT/);
    expect(
      await verifyAttestation(bytes, { ...options, roots: [AWS_ROOT_G1, other, chain.fingerprint] }),
    ).toBeDefined();
  });

  test.each<[string, Partial<Record<keyof AttestationDocument, unknown>>, object, string | RegExp]>([
    [
      "another nonce",
      { nonce: NONCE.map((byte) => byte ^ 1) },
      {},
      /^NONCE nonce: nonce: got 0003.*, expected 0102/,
    ],
    ["half a nonce", { nonce: NONCE.subarray(16) }, {}, /^NONCE/],
    ["a longer nonce", { nonce: Uint8Array.of(...NONCE, 0) }, {}, /^NONCE/],
    ["no nonce", { nonce: null }, {}, "NONCE nonce: nonce: got none"],
    ["an empty nonce", { nonce: new Uint8Array(0) }, {}, "NONCE nonce: nonce: got 0 bytes"],
    [
      "another key",
      { publicKey: USER_DATA },
      { publicKey: PUBLIC_KEY },
      /^BINDING public key: public key: got 0003/,
    ],
    ["no key", { publicKey: null }, { publicKey: PUBLIC_KEY }, "BINDING public key: public key: got none"],
    ["other data", {}, { userData: PUBLIC_KEY }, /^BINDING user data: user data: got 0003/],
    ["empty data", { userData: new Uint8Array(0) }, { userData: USER_DATA }, /^BINDING .*got 0 bytes/],
    [
      "no data where none is expected",
      { userData: null },
      { userData: new Uint8Array(0) },
      /^BINDING .*got none/,
    ],
    [
      "registers of debug mode",
      { pcrs: new Map([...Array(16).keys()].map((i) => [i, register(0)])) },
      {},
      "DEBUG",
    ],
    [
      "a zero PCR1",
      { pcrs: new Map([...documentPcrs(), [1, register(0)]]) },
      {},
      /^DEBUG mode: PCR1: got zeros/,
    ],
    [
      "no PCR2",
      { pcrs: new Map(documentPcrs().filter(([i]) => i !== 2)) },
      {},
      /^DEBUG mode: PCR2: got absent/,
    ],
    [
      "the mark of a development image",
      { pcrs: new Map([...documentPcrs(), [31, MARK]]) },
      {},
      "DEVELOPMENT build: PCR31: got the mark of a development image, expected none",
    ],
    [
      "another PCR0",
      { pcrs: new Map([...documentPcrs(), [0, register(1)]]) },
      {},
      /^PCRS registers: releases: got PCR0 0101/,
    ],
    [
      "a register too many",
      { pcrs: new Map([...documentPcrs(), [32, register(1)]]) },
      {},
      /^FORMAT fields: pcrs: got index 32/,
    ],
    ["no registers", { pcrs: new Map() }, {}, /^FORMAT/],
    ["another digest", { digest: "SHA512" }, {}, /^FORMAT/],
    ["time zero", { timestamp: 0 }, {}, /^FORMAT/],
    ["a future", { timestamp: NOW + 62_000 }, {}, "TIME time: timestamp: got 2026-03-04T05:07:09Z"],
    ["a past", { timestamp: NOW - 300_000 }, {}, "TIME time: timestamp: got 2026-03-04T05:01:07Z"],
    ["no root", { caBundle: [] }, {}, /^FORMAT/],
    [
      "a certificate of nothing",
      { certificate: Uint8Array.of(0x30, 0) },
      {},
      /^CHAIN chain: certificate: offset/,
    ],
  ])("is refused with %s", async (_, changes, more, expected) => {
    const document = await signed(chain, changes);
    const { nonce, ...rest } = options;
    const result = await verdict(document, { ...rest, nonce, ...more });
    if (typeof expected === "string") expect(result.startsWith(expected), result).toBe(true);
    else expect(result).toMatch(expected);
  });

  test("a register that the policy does not name may have any value", async () => {
    const document = await signed(chain, {
      pcrs: new Map([...documentPcrs(), [16, register(9)], [31, register(8)]]),
    });
    expect(await verifyAttestation(document, options)).toBeDefined();
  });

  test("clocks may differ by a minute ahead and a document be five old, to the millisecond", async () => {
    const at = (now: number, more = {}) => verdict(bytes, { ...options, now, ...more });
    expect(await at(NOW + 300_000)).toMatch(/^verified/);
    expect(await at(NOW + 300_001)).toMatch(/^TIME/);
    expect(await at(NOW - 60_000)).toMatch(/^verified/);
    expect(await at(NOW - 60_001)).toMatch(/^TIME/);
    expect(await at(NOW + 1000, { maxAge: 999 })).toMatch(/^TIME/);
    expect(await at(NOW - 1, { clockSkew: 0 })).toMatch(/^TIME/);
    expect(await at(NOW, { maxAge: 0, clockSkew: 0 })).toMatch(/^verified/);
  });

  test("now is this machine's clock unless it is given", async () => {
    const { now: _, ...rest } = options;
    expect(await verdict(bytes, rest)).toMatch(/^(?:CHAIN|TIME)/);
  });

  test("a signature by another key of the chain is refused", async () => {
    for (const [index, { privateKey }] of chain.keys.entries()) {
      const document = await signAttestation(documentOf(chain), privateKey);
      expect(await verdict(document, options)).toMatch(
        index === chain.keys.length - 1 ? /^verified/ : /^SIGNATURE/,
      );
    }
  });

  test("a signature of zeros is refused", async () => {
    const message = decodeCoseSign1(bytes);
    for (const signature of [new Uint8Array(96), new Uint8Array(96).fill(0xff)]) {
      expect(await verdict(encodeCoseSign1({ ...message, signature }), options)).toMatch(/^SIGNATURE/);
    }
  });

  test("may be changed by its owner while it is verified", async () => {
    const buffer = bytes.slice();
    const verifying = verifyAttestation(buffer, options);
    buffer.fill(0);
    expect((await verifying).document).toEqual(documentOf(chain));
    const nonce = NONCE.slice();
    const again = verifyAttestation(bytes, { ...options, nonce });
    nonce.fill(0);
    expect(await again).toBeDefined();
  });

  test("may lie anywhere in a larger buffer", async () => {
    const larger = concat([new Uint8Array(7), bytes, new Uint8Array(9)]);
    expect(await verifyAttestation(larger.subarray(7, 7 + bytes.length), options)).toBeDefined();
    expect(await verifyAttestation(Buffer.from(bytes), options)).toBeDefined();
  });

  test("any bytes in place of some are refused", async () => {
    const piece = fc.record({
      offset: fc.nat(bytes.length - 1),
      data: fc.uint8Array({ minLength: 1, maxLength: 40 }),
    });
    await fc.assert(
      fc.asyncProperty(piece, async ({ offset, data }) => {
        const spoiled = bytes.slice();
        spoiled.set(data.subarray(0, bytes.length - offset), offset);
        fc.pre(toHex(spoiled) !== toHex(bytes));
        expect(await verdict(spoiled, options)).not.toMatch(/^verified/);
      }),
      { numRuns: 300 },
    );
  });

  test("any item of CBOR is refused", async () => {
    const { cbor } = fc.letrec((tie) => ({
      cbor: fc.oneof(
        fc.integer(),
        fc.string(),
        fc.uint8Array(),
        fc.boolean(),
        fc.array(tie("cbor"), { maxLength: 4 }),
      ),
    }));
    await fc.assert(
      fc.asyncProperty(cbor, async (value) => {
        expect(await verdict(encodeCbor(value as string), options)).toMatch(/^FORMAT envelope/);
      }),
    );
  });
});

function documentPcrs(): [number, Uint8Array][] {
  return [...Array(16).keys()].map((i) => [i, register([0, 1, 2].includes(i) ? 0x10 + i : 0)]);
}

describe("options", () => {
  const [{ bytes, options } = { bytes: new Uint8Array(0), options: {} }] = real;
  const { pcrs } = options as { pcrs: typeof POLICY };
  const nonce = NONCE;

  test.each<[string, unknown, string]>([
    ["no nonce", { pcrs }, "TypeError: nonce: expected a Uint8Array, or dangerouslySkipNonce: true instead"],
    ["nonce undefined", { pcrs, nonce: undefined }, "TypeError: nonce: expected a Uint8Array"],
    ["nonce null", { pcrs, nonce: null }, "TypeError: nonce: expected a Uint8Array"],
    ["nonce as text", { pcrs, nonce: "00112233445566778899" }, "TypeError: nonce: expected a Uint8Array"],
    [
      "nonce and none",
      { pcrs, nonce, dangerouslySkipNonce: true },
      "TypeError: nonce: expected a Uint8Array, or",
    ],
    ["a truthy skip", { pcrs, dangerouslySkipNonce: 1 }, "TypeError: nonce: expected a Uint8Array"],
    [
      "15 bytes of nonce",
      { pcrs, nonce: nonce.subarray(17) },
      "RangeError: nonce: got 15 bytes, expected 16 to 512",
    ],
    [
      "513 bytes of nonce",
      { pcrs, nonce: new Uint8Array(513) },
      "RangeError: nonce: got 513 bytes, expected 16",
    ],
    ["neither pcrs nor policy", { nonce }, "TypeError: expected either pcrs or policy"],
    ["both", { nonce, pcrs, policy: { releases: [pcrs] } }, "TypeError: expected either pcrs or policy"],
    ["publicKey undefined", { pcrs, nonce, publicKey: undefined }, "TypeError: publicKey: got no Uint8Array"],
    ["userData as text", { pcrs, nonce, userData: "a" }, "TypeError: userData: got no Uint8Array"],
    ["no roots", { pcrs, nonce, roots: [] }, "TypeError: roots: expected a list of SHA-256 fingerprints"],
    ["a short root", { pcrs, nonce, roots: [AWS_ROOT_G1.slice(1)] }, "TypeError: roots: expected a list"],
    ["roots as text", { pcrs, nonce, roots: AWS_ROOT_G1 }, "TypeError: roots: expected a list"],
    ["now NaN", { pcrs, nonce, now: Number.NaN }, "RangeError: now: got NaN, expected milliseconds"],
    ["a Date as now", { pcrs, nonce, now: new Date() }, "RangeError: now: got"],
    ["maxAge NaN", { pcrs, nonce, maxAge: Number.NaN }, "RangeError: maxAge: got NaN, expected milliseconds"],
    [
      "maxAge infinite",
      { pcrs, nonce, maxAge: Number.POSITIVE_INFINITY },
      "RangeError: maxAge: got Infinity",
    ],
    [
      "maxAge as text",
      { pcrs, nonce, maxAge: "60000" },
      "RangeError: maxAge: got 60000, expected milliseconds",
    ],
    ["maxAge negative", { pcrs, nonce, maxAge: -1 }, "RangeError: maxAge: got -1"],
    ["clockSkew NaN", { pcrs, nonce, clockSkew: Number.NaN }, "RangeError: clockSkew: got NaN"],
    ["an empty pcrs", { pcrs: {}, nonce }, "CloisterError: policy: got nothing that pins the image"],
  ])("refuse %s", async (_, wrong, message) => {
    const error = await verifyAttestation(bytes, wrong as VerifyOptions).then(String, String);
    expect(error.startsWith(message), error).toBe(true);
  });

  test("refuse a document in base64, and a page without WebCrypto", async () => {
    await expect(verifyAttestation("hEShATgi" as never, { pcrs, nonce })).rejects.toThrow(
      "document: got no Uint8Array, expected the bytes",
    );
    const own = Object.getOwnPropertyDescriptor(globalThis, "crypto") as PropertyDescriptor;
    Object.defineProperty(globalThis, "crypto", { value: {}, configurable: true });
    const message = await verifyAttestation(bytes, { pcrs, nonce }).then(String, String);
    Object.defineProperty(globalThis, "crypto", own);
    expect(message).toMatch("TypeError: got no WebCrypto, expected it");
  });
});
