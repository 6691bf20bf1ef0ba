/** The NSM's time, from documents of hardware and from answers that are none. */
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { expect, test } from "vitest";
import { encodeCbor } from "../../../format/cbor.ts";
import { encodeNsmResponse, type NsmResponse } from "../../../format/nsm.ts";
import { readNsmClock, shortest } from "../../../init/time/sources.ts";

const document = new Uint8Array(readFileSync("test/vectors/attestation/qos-genesis.bin"));

function read(answer: Uint8Array) {
  let rawMs = 1_000;
  const module = {
    async exchange() {
      rawMs = 1_030;
      return answer;
    },
  };
  return readNsmClock(module, () => rawMs);
}

test("a document of hardware has whole milliseconds", async () => {
  const answer = encodeNsmResponse({ type: "Attestation", document });
  const expected = { sentMs: 1_000, receivedMs: 1_030, unixMs: 1_657_117_102_484, resolutionMs: 1 };
  expect(await read(answer)).toEqual(expected);
});

/** As QEMU's `nitro-enclave` has it: signed by nobody. */
function unsigned(payload: ReadonlyMap<string, number | string>): Uint8Array {
  const header = encodeCbor(new Map([[1, -1]]));
  const body = encodeCbor([header, new Map(), encodeCbor(payload), new Uint8Array(64)]);
  return encodeNsmResponse({ type: "Attestation", document: body });
}

test("a document that nobody signed counts as well: the device is the proof", async () => {
  expect((await read(unsigned(new Map([["timestamp", 1_700_000_000_001]])))).unixMs).toBe(1_700_000_000_001);
});

test("a timestamp of whole seconds may be of any moment within", async () => {
  const whole = await read(unsigned(new Map([["timestamp", 1_700_000_000_000]])));
  expect(whole.resolutionMs).toBe(1_000);
});

test.each<[string, NsmResponse]>([
  ["InternalError", { type: "Error", error: "InternalError" }],
  ["LockPCR", { type: "LockPCR" }],
])("the answer %s is no time", async (got, response) => {
  await expect(read(encodeNsmResponse(response))).rejects.toThrow(
    `the NSM's clock: got ${got}, expected an attestation document`,
  );
});

test.each([
  ["no timestamp", unsigned(new Map([["digest", "SHA384"]]))],
  ["a text", unsigned(new Map([["timestamp", "now"]]))],
])("%s in its place is no time", async (_, answer) => {
  await expect(read(answer)).rejects.toMatchObject({ code: "E_NSM" });
});

test("cut and flipped answers are refused or read, never worse", async () => {
  const whole = encodeNsmResponse({ type: "Attestation", document });
  const damage = fc.record({ at: fc.nat(whole.length - 1), bit: fc.nat(7), isCut: fc.boolean() });
  const property = async ({ at, bit, isCut }: { at: number; bit: number; isCut: boolean }) => {
    const bytes = isCut ? whole.slice(0, at) : whole.slice();
    if (!isCut) bytes[at] = (bytes[at] ?? 0) ^ (1 << bit);
    const outcome = await read(bytes).then(
      ({ unixMs }) => Number.isFinite(unixMs),
      ({ code }: { code: string }) => /^E_(NSM|CBOR|COSE)/.test(code),
    );
    expect(outcome).toBe(true);
    if (isCut) await expect(read(bytes)).rejects.toThrow();
  };
  await fc.assert(fc.asyncProperty(damage, property), { numRuns: 500 });
});

test("of several readings the shortest is the best", () => {
  const of = (sentMs: number, receivedMs: number) => ({ sentMs, receivedMs, unixMs: 1, resolutionMs: 0 });
  expect(shortest([of(0, 4), of(10, 11), of(20, 22)])).toEqual(of(10, 11));
});
