/**
 * The Nitro Secure Module, as an app finds it: one suite against the emulated one on stock QEMU and against the
 * real driver and QEMU's own on its `nitro-enclave` machine. What differs is in `Machine`, and in docs/attestation.md.
 */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { EmulatedDeviceOptions } from "../../emulator/index.ts";
import { PORT_NSM } from "../../format/abi.ts";
import { CborTag, type CborValue, decodeCbor } from "../../format/cbor.ts";
import { measureParent } from "../../format/measurement.ts";
import { encodeNsmRequest, type NsmRequest } from "../../format/nsm.ts";
import { toHex } from "../../format/struct.ts";
import { fingerprint, policyFromBuild, verifyAttestation } from "../../format/verify.ts";
import { type BuiltApp, buildApp, ROOT, type Running, start } from "./enclave.ts";

// ---------------------------------------------------------------- guest half

/** Calls by name with JSON arguments; byte strings are hexadecimal both ways. */
const APP = `
import { existsSync, readFileSync } from "node:fs";
import { attest, isDebug, nsm } from "cloister/runtime";
import { connectVsock } from ${JSON.stringify(join(ROOT, "linux/vsock.ts"))};
import { DeviceModule } from ${JSON.stringify(join(ROOT, "runtime/device.ts"))};
import { EmulatedModule } from ${JSON.stringify(join(ROOT, "runtime/module.ts"))};

const bytes = (hex?: string) => (hex === undefined ? undefined : Uint8Array.fromHex(hex));
const raw = existsSync("/dev/nsm") ? DeviceModule.open()! : new EmulatedModule(() => connectVsock({ cid: 3, port: 9003 }));

const calls: Record<string, (...words: any[]) => unknown> = {
  attest: ({ nonce, userData, publicKey }) =>
    attest({ nonce: bytes(nonce), userData: bytes(userData), publicKey: bytes(publicKey) }),
  describe: () => nsm.describe(),
  pcr: (index) => nsm.pcr(index),
  extendPcr: (index, data) => nsm.extendPcr(index, bytes(data)!),
  lockPcr: (index) => nsm.lockPcr(index),
  lockPcrsBelow: (count) => nsm.lockPcrsBelow(count),
  random: (count) => nsm.random(count),
  raw: (request) => raw.exchange(bytes(request)!),
  debug: () => isDebug(),
  rng: () => readFileSync("/sys/class/misc/hw_random/rng_current", "utf8").trim(),
  entropy: () => Number(readFileSync("/proc/sys/kernel/random/entropy_avail", "utf8")),
};

const show = (_: string, value: unknown) => (value instanceof Uint8Array ? value.toHex() : value);

export default {
  async fetch(request: Request): Promise<Response> {
    const [name, ...words] = await request.json();
    try {
      const value = await calls[name]!(...words);
      return new Response(JSON.stringify({ value: value ?? null }, show));
    } catch (error) {
      const { name, code, reason, message } = error as Error & { code?: string; reason?: string };
      return Response.json({ error: { name, code, reason, message } });
    }
  },
};
`;

// ----------------------------------------------------------------- host half

interface Refused {
  readonly name: string;
  readonly code?: string;
  readonly reason?: string;
  readonly message: string;
}

async function exchange(running: Running, words: unknown[]): Promise<{ value?: unknown; error?: Refused }> {
  const response = await fetch(running.url, { method: "POST", body: JSON.stringify(words) });
  return (await response.json()) as { value?: unknown; error?: Refused };
}

async function call<T>(running: Running, ...words: unknown[]): Promise<T> {
  const { value, error } = await exchange(running, words);
  if (error !== undefined) throw new Error(`${words[0]}: ${error.name}: ${error.message}`);
  return value as T;
}

async function refusal(running: Running, ...words: unknown[]): Promise<Refused> {
  const { value, error } = await exchange(running, words);
  if (error === undefined) throw new Error(`${words[0]}: got ${JSON.stringify(value)}, expected an error`);
  return error;
}

interface Register {
  readonly value: string;
  readonly locked: boolean;
}

const ZERO = "00".repeat(48);
const INSTANCE = "i-0123456789abcdef0";
const ROLE = "arn:aws:iam::123456789012:role/enclave,of=mine";

interface Machine {
  readonly name: string;
  readonly emulator: EmulatedDeviceOptions;
  /** The documents are signed, with ES384. */
  readonly signs: boolean;
  /** What the kernel's hardware generator is. */
  readonly rng: RegExp;
  /** Each field has its limits, an empty public key is refused, and indexes are 16 bits wide. */
  readonly checksFields: boolean;
}

const nitroQemu = process.env.CLOISTER_NITRO_QEMU;
const folder = mkdtempSync(join(tmpdir(), "cloister-nsm-"));
const nsm = { root: join(folder, "root"), roleArn: ROLE, instanceId: INSTANCE };

const MACHINES: readonly Machine[] = [
  { name: "emulated", emulator: { nsm }, signs: true, rng: /^(?!nsm)/, checksFields: true },
  {
    name: "QEMU's nitro-enclave",
    emulator: {
      nsm,
      program: nitroQemu ?? "",
      machine: "nitro-enclave",
      firmware: ["/usr/share/qemu", "/usr/share/seabios"],
    },
    signs: false,
    rng: /^nsm-hwrng$/,
    checksFields: false,
  },
];

let app: BuiltApp;
beforeAll(async () => {
  app = await buildApp({ "app.ts": APP }, { memory: "192M" });
});
afterAll(() => {
  app?.remove();
  rmSync(folder, { recursive: true, force: true });
});

const hex = (bytes: Uint8Array) => toHex(bytes);
const unhex = (text: string) => new Uint8Array(Buffer.from(text, "hex"));
const filled = (length: number) => "5a".repeat(length);

/** The payload's fields, whoever signed it or nobody. */
function payloadOf(document: string): ReadonlyMap<string, CborValue> {
  const item = decodeCbor(unhex(document));
  const [, , payload] = (item instanceof CborTag ? item.value : item) as CborValue[];
  return decodeCbor(payload as Uint8Array) as ReadonlyMap<string, CborValue>;
}

describe.each(MACHINES)("$name", ({ emulator, signs, rng, checksFields }) => {
  const absent = emulator.program === "" && "CLOISTER_NITRO_QEMU names no QEMU with this machine";
  let running: Running;
  beforeAll(async () => {
    if (absent) return;
    running = await start(app.eifPath, { emulator });
    await running.enclave.ready;
  });
  afterAll(() => running?.[Symbol.asyncDispose]());

  const it = (title: string, body: () => Promise<void>) =>
    test(title, async ({ skip }) => {
      if (absent) skip(absent);
      await body();
    });

  // In nsm-check's order: what changes registers comes late, and nothing unlocks them again.
  it("describes itself as hardware does", async () => {
    expect(await call(running, "describe")).toMatchObject({
      ...{ maxPcrs: 32, digest: "SHA384", moduleId: expect.stringMatching(`^${INSTANCE}-enc[0-9a-f]+$`) },
      lockedPcrs: Array.from({ length: 16 }, (_, index) => index),
    });
    expect(await call(running, "debug")).toBe(false);
    const taken = expect.objectContaining({ code: "EADDRINUSE" });
    expect(() => running.vsock.listen(PORT_NSM, () => {})).toThrow(taken);
  });

  it("has the image's measurements and the parent's in its registers", async () => {
    const { PCR0, PCR1, PCR2 } = app.measurements;
    const expected = new Map([
      [0, PCR0],
      [1, PCR1],
      [2, PCR2],
      [3, hex(measureParent(ROLE))],
      [4, hex(measureParent(INSTANCE))],
    ]);
    for (let index = 0; index < 32; index++) {
      const register = { value: expected.get(index) ?? ZERO, locked: index < 16 };
      expect(await call<Register>(running, "pcr", index), `PCR${index}`).toEqual(register);
    }
  });

  it("signs a document that verifies, under its root and with the build's registers", async () => {
    const nonce = crypto.getRandomValues(new Uint8Array(32));
    const [userData, publicKey] = [filled(512), filled(1024)];
    const document = await call<string>(running, "attest", { nonce: hex(nonce), userData, publicKey });
    const bytes = unhex(document);
    const policy = policyFromBuild({ Measurements: app.measurements });
    if (!signs) {
      await expect(verifyAttestation(bytes, { policy, nonce })).rejects.toMatchObject({ step: "envelope" });
      return;
    }
    const roots = [await fingerprint(await running.attestationRoot())];
    const { document: verified } = await verifyAttestation(bytes, {
      ...{ policy, nonce, roots },
      ...{ userData: unhex(userData), publicKey: unhex(publicKey) },
    });
    expect(verified.caBundle).toHaveLength(4);
    expect([...verified.pcrs.keys()]).toEqual(Array.from({ length: 16 }, (_, index) => index));
    await expect(verifyAttestation(bytes, { policy, nonce })).rejects.toMatchObject({
      code: "E_ATTESTATION_ROOT",
    });
    const other = { policy, nonce: new Uint8Array(32), roots };
    await expect(verifyAttestation(bytes, other)).rejects.toMatchObject({ code: "E_ATTESTATION_NONCE" });
  });

  it("puts in what it is given and null for the rest", async () => {
    const empty = payloadOf(await call(running, "attest", {}));
    expect([...empty.keys()]).toEqual([
      ...["module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"],
      ...["public_key", "user_data", "nonce"],
    ]);
    for (const field of ["public_key", "user_data", "nonce"]) expect(empty.get(field)).toBeNull();
    const some = payloadOf(await call(running, "attest", { userData: "", nonce: "00" }));
    expect([some.get("user_data"), some.get("nonce"), some.get("public_key")]).toEqual([
      ...[new Uint8Array(0), new Uint8Array(1), null],
    ]);
    expect(Math.abs(Number(some.get("timestamp")) - Date.now())).toBeLessThan(60_000);
  });

  it("gives random bytes, as many as asked for", async () => {
    for (const count of [0, 1, 255, 256, 257, 1000]) {
      expect(await call<string>(running, "random", count)).toHaveLength(2 * count);
    }
    const seen = new Set<string>();
    for (let i = 0; i < 16; i++) seen.add(await call(running, "random", 32));
    expect(seen.size).toBe(16);
    expect(await call(running, "rng")).toMatch(rng);
    expect(await call(running, "entropy")).toBe(256);
  });

  it("refuses impossible arguments before it asks", async () => {
    const refused: [string, ...unknown[]][] = [
      ["attest", { nonce: filled(513) }],
      ["attest", { userData: filled(513) }],
      ["attest", { publicKey: filled(1025) }],
      ["attest", { publicKey: "" }],
      ["pcr", 32],
      ["pcr", -1],
      ["pcr", 1.5],
      ["extendPcr", 32, "00"],
      ["extendPcr", 16, filled(4096)],
      ["lockPcr", 32],
      ["lockPcrsBelow", 33],
      ["random", 65_537],
    ];
    for (const words of refused) {
      expect(await refusal(running, ...words), JSON.stringify(words).slice(0, 60)).toMatchObject({
        name: "RangeError",
      });
    }
  });

  const raw = (request: NsmRequest | Uint8Array) =>
    call<string>(
      running,
      "raw",
      hex(request instanceof Uint8Array ? request : encodeNsmRequest(request)),
    ).then((answer) => decodeCbor(unhex(answer)));
  const error = (reason: string) => new Map([["Error", reason]]);

  it("answers impossible requests with the module's own errors", async () => {
    expect(await raw({ type: "DescribePCR", index: 32 })).toEqual(error("InvalidIndex"));
    expect(await raw({ type: "ExtendPCR", index: 32, data: Uint8Array.of(1) })).toEqual(
      error("InvalidIndex"),
    );
    expect(await raw({ type: "LockPCR", index: 32 })).toEqual(error("InvalidIndex"));
    expect(await raw({ type: "LockPCRs", range: 33 })).toEqual(error("InvalidIndex"));
    const beyond = error(checksFields ? "InvalidIndex" : "InvalidOperation");
    expect(await raw({ type: "DescribePCR", index: 300 })).toEqual(beyond);
    expect(await raw({ type: "LockPCRs", range: 300 })).toEqual(beyond);
    for (const bytes of ["00", "f6", "80", "a0", "ff", "6161", "a1614100", "1a", "a26141006142"]) {
      expect(await raw(unhex(bytes)), bytes).toEqual(error("InvalidOperation"));
    }
    const attestation = { type: "Attestation", userData: null, nonce: null, publicKey: null } as const;
    const keyless = await raw({ ...attestation, publicKey: new Uint8Array(0) });
    if (checksFields) expect(keyless).toEqual(error("InvalidArgument"));
    else expect(keyless).toEqual(new Map([["Attestation", expect.anything()]]));
    const long = new Uint8Array(1025);
    for (const field of ["userData", "nonce", "publicKey"] as const) {
      // nsm-check: 1024 bytes in each of the three at once.
      const largest = new Uint8Array(1024);
      expect(await raw({ ...attestation, [field]: largest })).not.toEqual(error("InputTooLarge"));
      const answer = await raw({ ...attestation, [field]: long });
      if (checksFields) expect(answer).toEqual(error("InputTooLarge"));
      else expect(answer).toEqual(new Map([["Attestation", expect.anything()]]));
    }
    expect(await refusal(running, "raw", filled(4097))).toMatchObject({
      name: "SystemError",
      code: "EMSGSIZE",
    });
  });

  it("locked registers stay as they are", async () => {
    for (const index of [0, 8, 15]) {
      const refused = { name: "NsmError", code: "E_NSM_READ_ONLY_INDEX", reason: "ReadOnlyIndex" };
      expect(await refusal(running, "extendPcr", index, "00")).toMatchObject(refused);
      expect(await refusal(running, "lockPcr", index)).toMatchObject(refused);
    }
    await call(running, "lockPcrsBelow", 16);
    await call(running, "lockPcrsBelow", 0);
  });

  it("registers of the app's own: extended as the hash says, locked, then in documents", async () => {
    let expected = Buffer.alloc(48);
    for (const data of ["010203", "", filled(3000)]) {
      expected = createHash("sha384").update(expected).update(Buffer.from(data, "hex")).digest();
      expect(await call(running, "extendPcr", 16, data)).toBe(hex(expected));
    }
    expect(await call(running, "pcr", 16)).toEqual({ value: hex(expected), locked: false });
    const pcrs = async () => [
      ...(payloadOf(await call(running, "attest", {})).get("pcrs") as Map<number, Uint8Array>),
    ];
    expect((await pcrs()).map(([index]) => index)).not.toContain(16);
    await call(running, "lockPcr", 16);
    expect(await pcrs()).toContainEqual([16, new Uint8Array(expected)]);
    expect(await refusal(running, "extendPcr", 16, "00")).toMatchObject({ reason: "ReadOnlyIndex" });
    expect(await refusal(running, "lockPcr", 16)).toMatchObject({ reason: "ReadOnlyIndex" });
    await call(running, "lockPcrsBelow", 20);
    expect(await refusal(running, "extendPcr", 19, "00")).toMatchObject({ reason: "ReadOnlyIndex" });
    expect(await call(running, "extendPcr", 20, "00")).not.toBe(ZERO);
    await call(running, "lockPcrsBelow", 32);
    await call(running, "lockPcrsBelow", 32);
    expect(await call(running, "describe")).toMatchObject({ lockedPcrs: { length: 32 } });
    expect(await pcrs()).toHaveLength(32);
  });

  it("many at once: each gets its own", async () => {
    const nonces = Array.from({ length: 30 }, (_, index) => index.toString(16).padStart(2, "0"));
    const documents = await Promise.all(nonces.map((nonce) => call<string>(running, "attest", { nonce })));
    expect(documents.map((document) => hex(payloadOf(document).get("nonce") as Uint8Array))).toEqual(nonces);
  });
});

test("in debug mode every register is zero, and nobody accepts the document", async () => {
  await using running = await start(app.eifPath, { debug: true, emulator: { nsm } });
  await running.enclave.ready;
  expect(await call(running, "debug")).toBe(true);
  for (let index = 0; index < 32; index++) {
    expect(await call(running, "pcr", index)).toEqual({ value: ZERO, locked: index < 16 });
  }
  const nonce = new Uint8Array(32);
  const document = unhex(await call(running, "attest", { nonce: hex(nonce) }));
  const roots = [await fingerprint(await running.attestationRoot())];
  const policy = policyFromBuild({ Measurements: app.measurements });
  await expect(verifyAttestation(document, { policy, nonce, roots })).rejects.toMatchObject({
    code: "E_ATTESTATION_DEBUG",
  });
});
