/**
 * Public entry point `cloister/verify`: whether an attestation document proves what it claims. Runs where WebCrypto is:
 * browsers, Node, Deno, Bun. Source: aws-nitro-enclaves-nsm-api `docs/attestation_process.md` §3.2.
 */
import { type AttestationDocument, decodeAttestation, decodeEnvelope } from "./attestation.ts";
import type { Certificate } from "./certificate.ts";
import { checkChain, checkLinks, decodeChain, iso, nameOf, verifyLinks } from "./chain.ts";
import { type CoseSign1, verifyCoseSign1 } from "./cose.ts";
import { DEVELOPMENT_REGISTER, DEVELOPMENT_VALUE } from "./development.ts";
import { mismatch, quote } from "./failure.ts";
import { isBytes, readSettings, type Settings, type VerifyOptions } from "./options.ts";
import { checkPcrs } from "./policy.ts";
import { fingerprint } from "./roots.ts";
import { type Step, StepList } from "./step.ts";
import { toHex } from "./struct.ts";

export {
  ATTESTATION_CONTENT_TYPE,
  ATTESTATION_PATH,
  ATTESTATION_TYPE,
  type AttestationDocument,
  DOCUMENT_MAX,
} from "./attestation.ts";
export { CloisterError } from "./failure.ts";
export type { VerifyOptions } from "./options.ts";
export {
  type BuildOutput,
  type PcrSet,
  type Policy,
  parentRegister,
  policyFromBuild,
  readPolicy,
  signerRegister,
} from "./policy.ts";
export { AWS_ROOT_G1, fingerprint } from "./roots.ts";
export { AttestationError, type Step, type StepName } from "./step.ts";

export interface Verified {
  /** Proven, all of it: byte strings are copies. */
  readonly document: AttestationDocument;
  /** What was checked, in order, and what was not. */
  readonly steps: readonly Step[];
}

/**
 * Check a document as the NSM made it: binary, not base64. Resolves only if every step passed. Rejects with an
 * AttestationError that names the step, what was found and what was expected, and has the steps up to there; with
 * E_ATTESTATION_POLICY for a policy that pins nothing; with TypeError or RangeError for options that make no sense.
 */
export async function verifyAttestation(document: Uint8Array, options: VerifyOptions): Promise<Verified> {
  if (!isBytes(document)) throw new TypeError("document: got no Uint8Array, expected the bytes");
  if (globalThis.crypto?.subtle === undefined) {
    throw new TypeError("got no WebCrypto, expected it: browsers have it on HTTPS pages and localhost alone");
  }
  const settings = readSettings(options);
  const steps = new StepList();
  // A copy: the caller's buffer may change while this waits.
  const message = await steps.run("envelope", () => readEnvelope(new Uint8Array(document)));
  const parsed = await steps.run("fields", () => readFields(message));
  await checkSigner(steps, message, parsed, settings);
  await checkContent(steps, parsed, settings);
  return { document: parsed, steps: steps.passed };
}

function readEnvelope(bytes: Uint8Array): [CoseSign1, string] {
  return [decodeEnvelope(bytes), `ES384, ${bytes.length} bytes`];
}

function readFields(message: CoseSign1): [AttestationDocument, string] {
  const document = decodeAttestation(message.payload);
  return [document, `module ${quote(document.moduleId)}, ${document.pcrs.size} registers`];
}

/** Root, chain, signature: all the cryptography. */
async function checkSigner(
  steps: StepList,
  message: CoseSign1,
  document: AttestationDocument,
  settings: Settings,
): Promise<void> {
  await steps.run("root", async () => {
    const root = await fingerprint(document.caBundle[0] as Uint8Array);
    if (settings.roots.includes(root)) return [root, root];
    throw mismatch("E_ATTESTATION_ROOT", "cabundle[0]: SHA-256", root, settings.roots.join(" or "));
  });
  const { chain, signed } = await steps.run("chain", () => readChain(message, document, settings));
  await steps.run("signature", () => {
    const signer = nameOf((chain.at(-1) as Certificate).subject);
    if (signed) return [signed, `by ${signer}`];
    throw mismatch(
      "E_ATTESTATION_SIGNATURE",
      "signature",
      "another key's, or of other bytes",
      `one by ${signer}`,
    );
  });
}

async function readChain(
  message: CoseSign1,
  document: AttestationDocument,
  { now, clockSkew }: Settings,
): Promise<[{ chain: readonly Certificate[]; signed: boolean }, string]> {
  const chain = decodeChain([...document.caBundle, document.certificate]);
  const { timestamp } = document;
  checkChain(chain, [
    { name: "the document's time", earliest: timestamp, latest: timestamp },
    // A certificate is issued with the first document: a slow clock here would see one from the future.
    { name: "this clock's time", earliest: now, latest: now + clockSkew },
  ]);
  const leaf = chain.at(-1) as Certificate;
  const [links, signed] = await Promise.all([verifyLinks(chain), verifyCoseSign1(message, leaf.publicKey)]);
  checkLinks(chain, links);
  return [{ chain, signed }, chain.map(({ subject }) => nameOf(subject)).join(" → ")];
}

/** What the document says, now that it is known who says it. */
async function checkContent(
  steps: StepList,
  document: AttestationDocument,
  settings: Settings,
): Promise<void> {
  await steps.run("time", () => [undefined, checkTime(document.timestamp, settings)]);
  await steps.run("mode", () => [undefined, checkMode(document)]);
  await checkBuild(steps, document, settings);
  await compare(steps, "nonce", document.nonce, settings.nonce);
  await steps.run("registers", () => [undefined, checkPcrs(document, settings.policy)]);
  await compare(steps, "public key", document.publicKey, settings.publicKey);
  await compare(steps, "user data", document.userData, settings.userData);
}

function checkTime(timestamp: number, { now, maxAge, clockSkew }: Settings): string {
  if (timestamp >= now - maxAge && timestamp <= now + clockSkew) return iso(timestamp);
  const expected = `${iso(now - maxAge)} to ${iso(now + clockSkew)}`;
  throw mismatch("E_ATTESTATION_TIME", "timestamp", iso(timestamp), expected);
}

/** AWS Nitro Enclaves user guide, "nitro-cli run-enclave", --debug-mode: its documents have PCRs of zeros. */
function checkMode(document: AttestationDocument): string {
  for (const index of [0, 1, 2]) {
    const register = document.pcrs.get(index);
    if (register?.some((byte) => byte !== 0)) continue;
    const got = register === undefined ? "absent" : "zeros: debug mode";
    throw mismatch("E_ATTESTATION_DEBUG", `PCR${index}`, got, "a measurement");
  }
  return "measured";
}

/** The mark is the boot's, and locked: no app can take it away or put another one there. */
async function checkBuild(
  steps: StepList,
  document: AttestationDocument,
  { allowDevelopment }: Settings,
): Promise<void> {
  const register = document.pcrs.get(DEVELOPMENT_REGISTER);
  const isMarked = register !== undefined && toHex(register) === DEVELOPMENT_VALUE;
  if (isMarked && allowDevelopment) {
    steps.skip("build", "built for development, which is allowed");
    return;
  }
  await steps.run("build", () => {
    if (!isMarked) return [undefined, "not marked"];
    const where = `PCR${DEVELOPMENT_REGISTER}`;
    throw mismatch("E_ATTESTATION_DEVELOPMENT", where, "the mark of a development image", "none");
  });
}

/** Neither side is secret: an ordinary comparison tells nobody anything. */
async function compare(
  steps: StepList,
  name: "nonce" | "public key" | "user data",
  got: Uint8Array | null,
  expected: Uint8Array | undefined,
): Promise<void> {
  if (expected === undefined) {
    steps.skip(name, show(got));
    return;
  }
  await steps.run(name, () => {
    if (got !== null && toHex(got) === toHex(expected)) return [undefined, show(got)];
    const code = name === "nonce" ? "E_ATTESTATION_NONCE" : "E_ATTESTATION_BINDING";
    throw mismatch(code, name, show(got), show(expected));
  });
}

function show(bytes: Uint8Array | null): string {
  return bytes === null ? "none" : toHex(bytes) || "0 bytes";
}
