/** The emulated Nitro Secure Module: its rules against a model, and bytes of a hostile guest. */
import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { bootRegisters } from "../../emulator/nsm/boot.ts";
import { NsmModule, type Statement } from "../../emulator/nsm/module.ts";
import { Registers } from "../../emulator/nsm/registers.ts";
import { SectionType } from "../../format/eif.ts";
import { decodeNsmResponse, encodeNsmRequest, type NsmRequest, type NsmResponse } from "../../format/nsm.ts";
import { decodeEif } from "../../format/reader.ts";
import { decodeSignature } from "../../format/signature.ts";
import { toHex } from "../../format/struct.ts";
import { fromHex, vector } from "../format/vectors.ts";

const MODULE_ID = "i-0000000000000000-enc1";

interface Bench {
  readonly errors: unknown[];
  readonly statements: Statement[];
  ask(request: NsmRequest): Promise<NsmResponse>;
  raw(bytes: Uint8Array): Promise<NsmResponse>;
}

function bench(values: ReadonlyMap<number, Uint8Array> = new Map(), fails = false): Bench {
  const errors: unknown[] = [];
  const statements: Statement[] = [];
  const module = new NsmModule({
    moduleId: MODULE_ID,
    registers: Promise.resolve(new Registers(values)),
    sign: async (statement) => {
      if (fails) throw new Error("no key");
      statements.push(statement);
      return Uint8Array.of(1, 2, 3);
    },
    onError: (error) => errors.push(error),
  });
  const raw = async (bytes: Uint8Array) => decodeNsmResponse(await module.answer(bytes));
  return { errors, statements, raw, ask: (request) => raw(encodeNsmRequest(request)) };
}

const refused = (error: string) => ({ type: "Error", error });
const attestation = { type: "Attestation", userData: null, nonce: null, publicKey: null } as const;

/** What the registers must do, in the plainest words. */
class Model {
  readonly values = Array.from({ length: 32 }, () => Buffer.alloc(48));
  readonly locked = new Set(Array.from({ length: 16 }, (_, index) => index));

  expected(request: NsmRequest): object {
    switch (request.type) {
      case "DescribePCR":
        if (request.index > 31) return refused("InvalidIndex");
        return {
          data: new Uint8Array(this.values[request.index] ?? []),
          lock: this.locked.has(request.index),
        };
      case "ExtendPCR": {
        if (request.index > 31) return refused("InvalidIndex");
        if (this.locked.has(request.index)) return refused("ReadOnlyIndex");
        const old = this.values[request.index] ?? Buffer.alloc(0);
        const value = createHash("sha384")
          .update(Buffer.concat([old, request.data]))
          .digest();
        this.values[request.index] = value;
        return { data: new Uint8Array(value) };
      }
      case "LockPCR":
        if (request.index > 31) return refused("InvalidIndex");
        if (this.locked.has(request.index)) return refused("ReadOnlyIndex");
        this.locked.add(request.index);
        return { type: "LockPCR" };
      case "LockPCRs":
        if (request.range > 32) return refused("InvalidIndex");
        for (let index = 0; index < request.range; index++) this.locked.add(index);
        return { type: "LockPCRs" };
      case "DescribeNSM":
        return {
          maxPcrs: 32,
          digest: "SHA384",
          moduleId: MODULE_ID,
          lockedPcrs: [...this.locked].sort((a, b) => a - b),
        };
      case "GetRandom":
        return { random: expect.objectContaining({ length: 256 }) };
      case "Attestation":
        return { document: Uint8Array.of(1, 2, 3) };
    }
  }
}

const index = fc.oneof(fc.integer({ min: 12, max: 34 }), fc.constantFrom(0, 255, 256, 65_535));
const anyRequest: fc.Arbitrary<NsmRequest> = fc.oneof(
  fc.record({ type: fc.constantFrom("GetRandom", "DescribeNSM") }),
  fc.record({ type: fc.constantFrom("DescribePCR", "LockPCR"), index }),
  fc.record({ type: fc.constant("ExtendPCR"), index, data: fc.uint8Array({ maxLength: 100 }) }),
  fc.record({
    type: fc.constant("LockPCRs"),
    range: fc.oneof(fc.integer({ min: 0, max: 34 }), fc.constant(65_535)),
  }),
  fc.constant(attestation),
) as fc.Arbitrary<NsmRequest>;

test("any sequence of requests does what the model does", async () => {
  const seen = new Map<string, number>();
  await fc.assert(
    fc.asyncProperty(fc.array(anyRequest, { minLength: 1, maxLength: 30 }), async (requests) => {
      const { ask, statements } = bench();
      const model = new Model();
      for (const request of requests) {
        const answer = await ask(request);
        expect(answer).toMatchObject(model.expected(request));
        const name = answer.type === "Error" ? answer.error : answer.type;
        seen.set(name, (seen.get(name) ?? 0) + 1);
      }
      await ask(attestation);
      expect([...(statements.at(-1)?.pcrs ?? [])]).toEqual(
        [...model.locked].sort((a, b) => a - b).map((i) => [i, new Uint8Array(model.values[i] ?? [])]),
      );
    }),
    { numRuns: 200 },
  );
  for (const name of ["InvalidIndex", "ReadOnlyIndex", "ExtendPCR", "LockPCR", "LockPCRs", "DescribePCR"]) {
    expect(seen.get(name), name).toBeGreaterThan(20);
  }
});

test("one request at a time: what comes during a signature waits for it", async () => {
  const { promise: signed, resolve } = Promise.withResolvers<Uint8Array>();
  const registers = Promise.resolve(new Registers(new Map()));
  const options = { moduleId: MODULE_ID, registers, sign: () => signed, onError: () => {} };
  const module = new NsmModule(options);
  const order: string[] = [];
  const ask = async (request: NsmRequest) => {
    await module.answer(encodeNsmRequest(request));
    order.push(request.type);
  };
  const all = [ask(attestation), ask({ type: "LockPCR", index: 20 }), ask({ type: "GetRandom" })];
  await new Promise((next) => setImmediate(next));
  expect(order).toEqual([]);
  resolve(Uint8Array.of(1));
  await Promise.all(all);
  expect(order).toEqual(["Attestation", "LockPCR", "GetRandom"]);
});

describe("Attestation", () => {
  test("takes 1024 bytes in each field at once, as nsm-check sends", async () => {
    const { ask, statements } = bench();
    const bytes = new Uint8Array(1024).fill(128);
    expect(await ask({ ...attestation, userData: bytes, nonce: bytes, publicKey: bytes })).toMatchObject({
      type: "Attestation",
    });
    expect(statements[0]).toMatchObject({
      userData: bytes,
      nonce: bytes,
      publicKey: bytes,
      digest: "SHA384",
    });
  });

  test.each(["userData", "nonce", "publicKey"])("refuses 1025 bytes of %s", async (field) => {
    const { ask, statements } = bench();
    expect(await ask({ ...attestation, [field]: new Uint8Array(1025) })).toEqual(refused("InputTooLarge"));
    expect(statements).toEqual([]);
  });

  test("refuses a public key of no bytes, and takes nonce and user data of none", async () => {
    const { ask } = bench();
    const none = new Uint8Array(0);
    expect(await ask({ ...attestation, publicKey: none })).toEqual(refused("InvalidArgument"));
    expect(await ask({ ...attestation, userData: none, nonce: none })).toMatchObject({ type: "Attestation" });
  });

  test("without a key is InternalError, and the reason stays with the host", async () => {
    const { ask, errors } = bench(new Map(), true);
    expect(await ask(attestation)).toEqual(refused("InternalError"));
    expect(errors).toEqual([new Error("no key")]);
    expect(await ask({ type: "DescribeNSM" })).toMatchObject({ type: "DescribeNSM" });
  });
});

describe("hostile requests", () => {
  test("more than 4096 bytes", async () => {
    const { raw } = bench();
    expect(await raw(new Uint8Array(4097))).toEqual(refused("InputTooLarge"));
    expect(await raw(new Uint8Array(4096))).toEqual(refused("InvalidOperation"));
  });

  const valid = [
    { type: "ExtendPCR", index: 20, data: new Uint8Array(40) } as const,
    { ...attestation, nonce: new Uint8Array(32), publicKey: new Uint8Array(90) },
    { type: "LockPCRs", range: 20 } as const,
  ].map(encodeNsmRequest);

  test("every truncation", async () => {
    const { raw } = bench();
    for (const bytes of valid) {
      for (let length = 0; length < bytes.length; length++) {
        expect(await raw(bytes.subarray(0, length))).toEqual(refused("InvalidOperation"));
      }
    }
  });

  test("every flipped bit and any bytes: an answer, and no fault of the host", async () => {
    const { raw, errors } = bench();
    for (const bytes of valid) {
      for (let bit = 0; bit < bytes.length * 8; bit++) {
        const flipped = bytes.slice();
        flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        await raw(flipped);
      }
    }
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 4096 }), async (bytes) => void (await raw(bytes))),
    );
    expect(errors).toEqual([]);
  });

  test.each([
    ["a map that says it has 2^32 entries", "bb00000001ffffffff"],
    [
      "bytes that say they are 2^63 long",
      "a169457874656e64504352a265696e64657810646461746" + "15b7fffffffffffffff",
    ],
    ["arrays in arrays", "81".repeat(4000)],
    ["a key twice", "a26141006141f6"],
    ["an indefinite length", "bf61414100ff"],
  ])("%s", async (_, hex) => {
    const { raw, errors } = bench();
    expect(await raw(fromHex(hex))).toEqual(refused("InvalidOperation"));
    expect(errors).toEqual([]);
  });
});

/** Of the vector S-secp384r1.eif: what AWS's tools printed. */
const PCR0 =
  "4138378623ae26f72fdec6f1cb46eb2d57ac0d411b71be5d6c463176fe712d51a7431eb2c6910a49c40035e9a7cdd555";
const PCR8 =
  "eab41e5770954da3ff0a647741b14505e656af3aecf2cd249e26507ff4ad6688434c6dab7afbdeab3d104423d09e3fcf";

describe("registers at boot", () => {
  const measurements = { pcr0: fill(1), pcr1: fill(2), pcr2: fill(3) };
  const parent = { instanceId: "i-07e25f3bada361dec", roleArn: "arn:aws:iam::123456789012:role/enclave" };

  function fill(byte: number): Uint8Array {
    return new Uint8Array(48).fill(byte);
  }

  async function valuesOf(
    facts: Partial<Parameters<typeof bootRegisters>[0]>,
  ): Promise<Record<number, string>> {
    const registers = await bootRegisters({
      debug: false,
      measurements,
      signature: undefined,
      ...parent,
      ...facts,
    });
    const all = Array.from({ length: 32 }, (_, i) => [i, toHex(registers.describe(i).value)] as const);
    return Object.fromEntries(all.filter(([, value]) => !/^0+$/.test(value)));
  }

  const sha384 = (...pieces: (Uint8Array | string)[]) => {
    const hash = createHash("sha384");
    for (const piece of pieces) hash.update(piece);
    return hash.digest("hex");
  };

  test("image and parent", async () => {
    expect(await valuesOf({})).toEqual({
      ...{ 0: toHex(fill(1)), 1: toHex(fill(2)), 2: toHex(fill(3)) },
      3: sha384(new Uint8Array(48), parent.roleArn),
      4: sha384(new Uint8Array(48), parent.instanceId),
    });
    expect(Object.keys(await valuesOf({ roleArn: undefined }))).toEqual(["0", "1", "2", "4"]);
  });

  test("zeros in debug mode", async () => {
    expect(await valuesOf({ debug: true })).toEqual({});
  });

  test("PCR8 of a signed image, and no registers at all where the signature is another image's", async () => {
    const eif = decodeEif(vector("eif/S-secp384r1.eif"));
    const section = eif.sections.find(({ type }) => type === SectionType.Signature);
    const signature = decodeSignature(section?.data ?? new Uint8Array(0));
    const signed = { ...measurements, pcr0: fromHex(PCR0) };
    expect(await valuesOf({ signature, measurements: signed })).toMatchObject({ 0: PCR0, 8: PCR8 });
    await expect(valuesOf({ signature })).rejects.toThrow("not of this image");
    expect(await valuesOf({ signature, debug: true })).toEqual({});
  });
});
