import { describe, expect, test } from "vitest";
import { measureParent, measurePcr8 } from "../../format/measurement.ts";
import { checkPcrs, checkPolicy } from "../../format/policy.ts";
import { toHex } from "../../format/struct.ts";
import {
  type BuildOutput,
  type PcrSet,
  type Policy,
  parentRegister,
  policyFromBuild,
  readPolicy,
  signerRegister,
} from "../../format/verify.ts";
import { documentOf, register } from "./authority.ts";
import { refusal, vector } from "./vectors.ts";

const value = (fill: number) => toHex(register(fill));
const release = (a: number): PcrSet => ({ PCR0: value(a), PCR1: value(a + 1), PCR2: value(a + 2) });
const build = (a: number, more = {}): BuildOutput => ({
  Measurements: {
    HashAlgorithm: "Sha384 { ... }",
    ...release(a),
    ...more,
  } as unknown as BuildOutput["Measurements"],
});

/** A document whose registers have these values, and no others. */
function documentWith(registers: Readonly<Record<number, number>>) {
  const pcrs = new Map(Object.entries(registers).map(([index, fill]) => [Number(index), register(fill)]));
  return { ...documentOf({ certificates: [], keys: [], fingerprint: "" }), pcrs };
}

const PCRS = "E_ATTESTATION_PCRS";
const POLICY = "E_ATTESTATION_POLICY";

describe("checkPcrs", () => {
  const one = { 0: 1, 1: 2, 2: 3, 3: 9, 4: 8, 8: 7 };

  test.each<[string, Policy]>([
    ["one release", { releases: [release(1)] }],
    ["PCR0 alone", { releases: [{ PCR0: value(1) }] }],
    ["PCR1 and PCR2", { releases: [{ PCR1: value(2), PCR2: value(3) }] }],
    ["PCR8 in a release", { releases: [{ PCR8: value(7) }] }],
    ["the second of two releases", { releases: [release(5), release(1)] }],
    ["a signer", { signers: [value(7)] }],
    [
      "the second signer, from a role, on an instance",
      { signers: [value(6), value(7)], roles: [value(9)], instances: [value(8)] },
    ],
    ["a release of a signer", { releases: [release(1)], signers: [value(7)] }],
    ["a release and other registers", { releases: [{ ...release(1), PCR3: value(9), PCR4: value(8) }] }],
  ])("accepts %s", (_, policy) => {
    expect(checkPcrs(documentWith(one), checkPolicy(policy))).toMatch(/^PCR\d [0-9a-f]{96}/);
  });

  test.each<[string, Policy, string]>([
    [
      "another release",
      { releases: [release(2)] },
      `releases: got PCR0 ${value(1)}, PCR1 ${value(2)}, PCR2 ${value(3)}, expected PCR0 ${value(2)}, PCR1 ${value(3)}, PCR2 ${value(4)}`,
    ],
    [
      "one register that differs",
      { releases: [{ ...release(1), PCR2: value(4) }] },
      `releases: got PCR2 ${value(3)}, expected PCR2 ${value(4)}`,
    ],
    [
      "a mixture of two releases",
      {
        releases: [
          { ...release(1), PCR2: value(4) },
          { ...release(1), PCR1: value(4) },
        ],
      },
      `releases: got PCR2 ${value(3)}, PCR1 ${value(2)}, expected PCR2 ${value(4)} or PCR1 ${value(4)}`,
    ],
    ["another signer", { signers: [value(6)] }, `PCR8: got ${value(7)}, expected ${value(6)}`],
    [
      "a known signer's unknown release",
      { signers: [value(7)], releases: [release(2)] },
      `releases: got PCR0`,
    ],
    ["a known release's unknown signer", { signers: [value(6)], releases: [release(1)] }, "PCR8: got"],
    [
      "another role",
      { releases: [release(1)], roles: [value(1), value(2)] },
      `PCR3: got ${value(9)}, expected ${value(1)} or ${value(2)}`,
    ],
    [
      "another instance",
      { releases: [release(1)], instances: [value(1)] },
      `PCR4: got ${value(8)}, expected ${value(1)}`,
    ],
    [
      "a register that is not there",
      { releases: [{ ...release(1), PCR16: value(1) }] },
      `releases: got PCR16 absent, expected PCR16 ${value(1)}`,
    ],
    ["a signer that is not there", { signers: [value(7)] }, "PCR8: got absent"],
  ])("refuses %s", (name, policy, message) => {
    const { 8: _, ...unsigned } = one;
    const document = documentWith(name.endsWith("signer that is not there") ? unsigned : one);
    expect(refusal(() => checkPcrs(document, checkPolicy(policy))).startsWith(`${PCRS}: ${message}`)).toBe(
      true,
    );
  });
});

describe("checkPolicy", () => {
  test("takes upper case, and zeros where they say that there is none", () => {
    const set = { PCR0: value(0xab).toUpperCase(), PCR3: value(0) };
    expect(checkPolicy({ releases: [set] })).toEqual({ releases: [{ PCR0: value(0xab), PCR3: value(0) }] });
  });

  test.each<[string, unknown, string]>([
    ["nothing", undefined, "policy: got nothing, expected an object"],
    ["null", null, "policy: got null, expected an object"],
    ["an empty policy", {}, "policy: got nothing that pins the image, expected PCR0, PCR1 and PCR2, or PCR8"],
    ["no releases", { releases: [] }, "releases: got an empty list, expected a list of at least one"],
    ["an empty release", { releases: [{}] }, "policy: got nothing that pins the image"],
    [
      "an empty one of two releases",
      { releases: [release(1), {}] },
      "policy: got nothing that pins the image",
    ],
    ["PCR1 alone", { releases: [{ PCR1: value(1) }] }, "policy: got nothing that pins the image"],
    ["PCR2 alone", { releases: [{ PCR2: value(1) }] }, "policy: got nothing that pins the image"],
    ["PCR3 alone", { releases: [{ PCR3: value(1) }] }, "policy: got nothing that pins the image"],
    ["a role alone", { roles: [value(1)] }, "policy: got nothing that pins the image"],
    ["an instance alone", { instances: [value(1)] }, "policy: got nothing that pins the image"],
    ["no signers", { signers: [] }, "signers: got an empty list, expected a list of at least one"],
    [
      "releases as an object",
      { releases: release(1) },
      "releases: got an object, expected a list of at least one",
    ],
    ["a release of text", { releases: ["a"] }, "releases[0]: got a, expected an object"],
    [
      "a short value",
      { releases: [{ PCR0: "00" }] },
      "releases[0]: PCR0: got 00, expected 96 hexadecimal digits",
    ],
    [
      "bytes",
      { releases: [{ PCR0: register(1) }] },
      "releases[0]: PCR0: got an object, expected 96 hexadecimal digits",
    ],
    ["undefined", { releases: [{ PCR0: undefined }] }, "releases[0]: PCR0: got nothing, expected 96"],
    ["a signer in base64", { signers: ["abcd"] }, "signers: PCR8: got abcd, expected 96 hexadecimal digits"],
    [
      "zeros for PCR0",
      { releases: [{ PCR0: value(0) }] },
      "releases[0]: PCR0: got zeros, expected a measurement",
    ],
    ["zeros for a signer", { signers: [value(0)] }, "signers: PCR8: got zeros, expected a measurement"],
    [
      "a register 32",
      { releases: [{ PCR0: value(1), PCR32: value(1) }] },
      'releases[0]: got "PCR32", expected PCR0 to PCR31',
    ],
    [
      "a lower-case name",
      { releases: [{ pcr0: value(1) }] },
      'releases[0]: got "pcr0", expected PCR0 to PCR31',
    ],
    [
      "a register with a zero before it",
      { releases: [{ PCR00: value(1) }] },
      'releases[0]: got "PCR00", expected',
    ],
    [
      "an unknown list",
      { releases: [release(1)], signer: [value(1)] },
      'policy: got "signer", expected releases, signers',
    ],
    [
      "inherited registers",
      { releases: [Object.create(release(1))] },
      "policy: got nothing that pins the image",
    ],
  ])("refuses %s", (_, policy, message) => {
    const got = refusal(() => checkPolicy(policy));
    expect(got.startsWith(`${POLICY}: ${message}`), got).toBe(true);
  });
});

describe("policyFromBuild", () => {
  test("takes builds whole, and nothing but their registers", () => {
    expect(policyFromBuild(build(1))).toEqual({ releases: [release(1)] });
    expect(policyFromBuild(build(1), build(4, { PCR8: value(9) }))).toEqual({
      releases: [release(1), { ...release(4), PCR8: value(9) }],
    });
  });

  test.each<[string, readonly unknown[], string]>([
    ["no build", [], "releases: got an empty list"],
    [
      "a build without measurements",
      [{ EifPath: "a" }],
      "build: got nothing, expected an object with Measurements",
    ],
    [
      "a failed build",
      [{ Error: { Code: "E_ENTRY" } }],
      "build: got nothing, expected an object with Measurements",
    ],
    [
      "a build without PCR2",
      [{ Measurements: { PCR0: value(1), PCR1: value(1) } }],
      "releases[0]: PCR2: got nothing",
    ],
    ["text", ["{}"], "build: got nothing, expected an object with Measurements"],
  ])("refuses %s", (_, builds, message) => {
    const got = refusal(() => policyFromBuild(...(builds as BuildOutput[])));
    expect(got.startsWith(`${POLICY}: ${message}`), got).toBe(true);
  });
});

test.each<[string, unknown, Policy]>([
  ["a build's output", build(1), { releases: [release(1)] }],
  ["several of them", [build(1), build(2)], { releases: [release(1), release(2)] }],
  ["registers", release(3), { releases: [release(3)] }],
  ["a list of registers and builds", [release(3), build(1)], { releases: [release(3), release(1)] }],
  ["a policy", { signers: [value(1)], roles: [value(2)] }, { signers: [value(1)], roles: [value(2)] }],
])("readPolicy takes %s", (_, json, policy) => expect(readPolicy(json)).toEqual(policy));

test.each([null, 1, "a", [], {}, [[release(1)]], [null], { Measurements: null }, { PCR0: 1 }, { Error: {} }])(
  "readPolicy refuses %j",
  (json) => expect(refusal(() => readPolicy(json))).toMatch(POLICY),
);

test("registers of parent and signer are those that the launcher and the builder measure", async () => {
  const instance = "i-07e25f3bada361dec";
  expect(await parentRegister(instance)).toBe(
    "7021a47677bff47b7623ed573cb71326925d51773cb4f5af33f346d9ffceb3d6e2c4aa85f1e2b352e4b295ff22d16485",
  );
  const role = "arn:aws:iam::123456789012:role/enclave";
  expect(await parentRegister(role)).toBe(toHex(measureParent(role)));
  const der = vector("attestation/aws-root-g1.der");
  expect(await signerRegister(der)).toBe(toHex(measurePcr8(der)));
});
