/**
 * What is accepted of an enclave: values of its registers. Source: AWS Nitro Enclaves user guide, "Where to get an
 * enclave's measurements"; maths: image-format README.
 */
import type { AttestationDocument } from "./attestation.ts";
import { type CloisterError, mismatch } from "./failure.ts";
import { concat, toHex } from "./struct.ts";

/** Registers by their names: `PCR0` to `PCR31`, 96 hexadecimal digits each. */
export type PcrSet = { readonly [name: `PCR${number}`]: string };

/**
 * An enclave is accepted when each list that is there accepts it. What runs in it must be pinned: every release by PCR0,
 * by PCR1 and PCR2 together, or by PCR8; or else the signers.
 */
export interface Policy {
  /** At least one release has all its registers equal: values of two releases never mix. */
  readonly releases?: readonly PcrSet[];
  /** PCR8 is one of these: who signed the image. See `signerRegister`. */
  readonly signers?: readonly string[];
  /** PCR3 is one of these: the IAM role of the parent instance. See `parentRegister`. */
  readonly roles?: readonly string[];
  /** PCR4 is one of these: the parent instance. See `parentRegister`. */
  readonly instances?: readonly string[];
}

/** Lists of one register each. */
const LISTS = { signers: "PCR8", roles: "PCR3", instances: "PCR4" } as const;
const NAME = /^PCR(?:[0-9]|[12][0-9]|3[01])$/;
const VALUE = /^[0-9a-f]{96}$/;
/** What an image determines, and nothing else does. */
const ANCHORS: readonly string[] = ["PCR0", "PCR1", "PCR2", "PCR8"];
const ZERO = "0".repeat(96);

/** The same policy with its values in lower case. Throws E_ATTESTATION_POLICY when it pins nothing or is ill-formed. */
export function checkPolicy(policy: unknown): Policy {
  if (!isObject(policy)) throw wrong("policy", policy, "an object");
  const unknown = Object.keys(policy).find((key) => key !== "releases" && !Object.hasOwn(LISTS, key));
  if (unknown !== undefined) throw wrong("policy", `"${unknown}"`, "releases, signers, roles, instances");
  const lists = Object.entries(LISTS).flatMap(([key, name]) => {
    const list = policy[key];
    return list === undefined ? [] : [[key, listOf(list, key).map((value) => register(value, name, key))]];
  });
  const checked: Policy = Object.fromEntries(lists);
  const releases =
    policy.releases === undefined ? undefined : listOf(policy.releases, "releases").map(checkSet);
  const pinned = checked.signers !== undefined || (releases?.every(pins) ?? false);
  if (!pinned) throw wrong("policy", "nothing that pins the image", "PCR0, PCR1 and PCR2, or PCR8");
  return releases === undefined ? checked : { ...checked, releases };
}

function listOf(value: unknown, name: string): readonly unknown[] {
  if (Array.isArray(value) && value.length > 0) return value;
  throw wrong(name, Array.isArray(value) ? "an empty list" : value, "a list of at least one");
}

function checkSet(set: unknown, index: number): PcrSet {
  const where = `releases[${index}]`;
  if (!isObject(set)) throw wrong(where, set, "an object of registers");
  const entries = Object.entries(set).map(([name, value]) => {
    if (!NAME.test(name)) throw wrong(where, `"${name}"`, "PCR0 to PCR31");
    return [name, register(value, name, where)];
  });
  return Object.fromEntries(entries) as PcrSet;
}

function register(value: unknown, name: string, list: string): string {
  const where = `${list}: ${name}`;
  const text = typeof value === "string" ? value.toLowerCase() : "";
  if (!VALUE.test(text)) throw wrong(where, value, "96 hexadecimal digits");
  // Anyone's enclave has these in debug mode, and 8 without a signer; other registers may well be expected to be zero.
  if (text === ZERO && ANCHORS.includes(name)) throw wrong(where, "zeros", "a measurement");
  return text;
}

function pins(set: PcrSet): boolean {
  return "PCR0" in set || "PCR8" in set || ("PCR1" in set && "PCR2" in set);
}

/** `BuildOutput.Measurements` are taken: what `cloister build --json`, `describe --json` and nitro-cli print. */
export interface BuildOutput {
  readonly Measurements: {
    readonly PCR0: string;
    readonly PCR1: string;
    readonly PCR2: string;
    readonly PCR8?: string;
  };
}

/** Accept any of these builds, each by all its registers. Throws E_ATTESTATION_POLICY. */
export function policyFromBuild(...builds: readonly BuildOutput[]): Policy {
  return checkPolicy({ releases: builds.map(releaseOf) });
}

function releaseOf(build: unknown): object {
  const measurements = isObject(build) ? build.Measurements : undefined;
  if (!isObject(measurements)) throw wrong("build", measurements, "an object with Measurements");
  const { PCR0, PCR1, PCR2, PCR8 } = measurements;
  return { PCR0, PCR1, PCR2, ...(PCR8 === undefined ? {} : { PCR8 }) };
}

/**
 * A policy from parsed JSON: a policy, an object of registers, the output of a build, or a list of the latter two.
 * Throws E_ATTESTATION_POLICY.
 */
export function readPolicy(json: unknown): Policy {
  if (isObject(json) && !isRelease(json)) return checkPolicy(json);
  const list = Array.isArray(json) ? json : [json];
  const releases = list.map((one) => (isObject(one) && "Measurements" in one ? releaseOf(one) : one));
  return checkPolicy({ releases });
}

function isRelease(value: object): boolean {
  return Object.keys(value).some((key) => key === "Measurements" || NAME.test(key));
}

/** PCR3 from the ARN of the parent's IAM role, PCR4 from the parent's instance id. 96 hexadecimal digits. */
export async function parentRegister(text: string): Promise<string> {
  return extendZero(new TextEncoder().encode(text));
}

/** PCR8 from the signing certificate, DER. 96 hexadecimal digits. */
export async function signerRegister(certificate: Uint8Array): Promise<string> {
  return extendZero(await sha384(certificate));
}

async function extendZero(data: Uint8Array): Promise<string> {
  return toHex(await sha384(concat([new Uint8Array(48), data])));
}

async function sha384(data: Uint8Array): Promise<Uint8Array> {
  return new Uint8Array(await globalThis.crypto.subtle.digest("SHA-384", new Uint8Array(data)));
}

/**
 * What the document has of the registers that the policy names. Throws E_ATTESTATION_PCRS. Registers are public: they are
 * compared as text, and time tells nothing.
 */
export function checkPcrs(document: AttestationDocument, policy: Policy): string {
  const registerOf = (name: string) => {
    const bytes = document.pcrs.get(Number(name.slice(3)));
    return bytes === undefined ? "absent" : toHex(bytes);
  };
  const { releases } = policy;
  const names = new Set<string>();
  for (const [key, name] of Object.entries(LISTS) as [keyof typeof LISTS, string][]) {
    const list = policy[key];
    if (list === undefined) continue;
    names.add(name);
    if (!list.includes(registerOf(name))) throw refused(name, registerOf(name), list.join(" or "));
  }
  for (const name of (releases ?? []).flatMap(Object.keys)) names.add(name);
  const differing = (set: PcrSet) =>
    Object.entries(set).filter(([name, value]) => registerOf(name) !== value);
  if (releases !== undefined && !releases.some((set) => differing(set).length === 0)) {
    throw releaseRefused(releases.map(differing), registerOf);
  }
  return list([...names].map((name) => [name, registerOf(name)]));
}

type Registers = readonly (readonly [string, string])[];

/** Of each release only what differs is told. */
function releaseRefused(releases: readonly Registers[], registerOf: (name: string) => string): CloisterError {
  const names = new Set(releases.flat().map(([name]) => name));
  const got = list([...names].map((name) => [name, registerOf(name)]));
  return refused("releases", got, releases.map(list).join(" or "));
}

function list(registers: Registers): string {
  return registers.map(([name, value]) => `${name} ${value}`).join(", ");
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function refused(where: string, got: string, expected: string): CloisterError {
  return mismatch("E_ATTESTATION_PCRS", where, got, expected);
}

function wrong(where: string, got: unknown, expected: string): CloisterError {
  return mismatch("E_ATTESTATION_POLICY", where, show(got), expected);
}

function show(value: unknown): string {
  if (value === undefined) return "nothing";
  if (typeof value === "object" && value !== null) return Array.isArray(value) ? "a list" : "an object";
  return String(value).slice(0, 120);
}
