/** What a verification is asked for, and its defaults: whatever is left out is the safe choice. */
import { PORTABLE_MAX } from "./attestation.ts";
import { checkPolicy, type PcrSet, type Policy } from "./policy.ts";
import { AWS_ROOT_G1 } from "./roots.ts";

export type VerifyOptions = Accepted & Freshness & Checks;

/** What may run in the enclave. */
export type Accepted =
  /** One release, by its registers. */
  { readonly pcrs: PcrSet; readonly policy?: never } | { readonly policy: Policy; readonly pcrs?: never };

type Freshness =
  /** Random bytes of this very request, 16 to 512 of them, which the document must have. */
  | { readonly nonce: Uint8Array; readonly dangerouslySkipNonce?: never }
  /** Accept a document that anyone may have recorded within `maxAge`. */
  | { readonly dangerouslySkipNonce: true; readonly nonce?: never };

interface Checks {
  /** What the enclave must have put into the document; left out, it is not looked at. */
  readonly publicKey?: Uint8Array;
  readonly userData?: Uint8Array;
  /** SHA-256 of the root certificates to trust, instead of AWS's; see `fingerprint`. */
  readonly roots?: readonly string[];
  /** This clock's time, Unix milliseconds; default: the machine's. */
  readonly now?: number;
  /** How old a document may be, milliseconds; default: 5 minutes. */
  readonly maxAge?: number;
  /** Accept an image whose app its parent can replace at any time, as `cloister dev` builds it. For tests. */
  readonly dangerouslyAllowDevelopment?: boolean;
  /** How far the enclave's clock may be ahead of this one, milliseconds; default: 1 minute. */
  readonly clockSkew?: number;
}

export interface Settings {
  readonly policy: Policy;
  /** undefined: skipped. */
  readonly nonce: Uint8Array | undefined;
  readonly publicKey: Uint8Array | undefined;
  readonly userData: Uint8Array | undefined;
  readonly roots: readonly string[];
  readonly now: number;
  readonly maxAge: number;
  readonly clockSkew: number;
  readonly allowDevelopment: boolean;
}

/** Ours: 128 bits are what chance cannot repeat. Bytes. */
const NONCE_MIN = 16;
const MAX_AGE = 5 * 60_000;
const CLOCK_SKEW = 60_000;

/** Throws TypeError or RangeError for what makes no sense, E_ATTESTATION_POLICY for a policy that pins nothing. */
export function readSettings(options: VerifyOptions): Settings {
  const { pcrs, policy } = options;
  if ((pcrs === undefined) === (policy === undefined)) throw new TypeError("expected either pcrs or policy");
  return {
    policy: checkPolicy(policy ?? { releases: [pcrs] }),
    nonce: readNonce(options),
    publicKey: readBytes(options, "publicKey"),
    userData: readBytes(options, "userData"),
    roots: readRoots(options.roots ?? [AWS_ROOT_G1]),
    now: readTime("now", options.now ?? Date.now()),
    maxAge: readTime("maxAge", options.maxAge ?? MAX_AGE),
    clockSkew: readTime("clockSkew", options.clockSkew ?? CLOCK_SKEW),
    allowDevelopment: options.dangerouslyAllowDevelopment === true,
  };
}

/** Whatever window, frame or test environment it was made in: `instanceof` knows only its own. */
export function isBytes(value: unknown): value is Uint8Array {
  return Object.prototype.toString.call(value) === "[object Uint8Array]";
}

function readNonce({ nonce, dangerouslySkipNonce }: VerifyOptions): Uint8Array | undefined {
  if (nonce === undefined && dangerouslySkipNonce === true) return undefined;
  if (!isBytes(nonce) || dangerouslySkipNonce !== undefined) {
    throw new TypeError("nonce: expected a Uint8Array, or dangerouslySkipNonce: true instead");
  }
  if (nonce.length >= NONCE_MIN && nonce.length <= PORTABLE_MAX) return new Uint8Array(nonce);
  throw new RangeError(`nonce: got ${nonce.length} bytes, expected ${NONCE_MIN} to ${PORTABLE_MAX}`);
}

/** A key that is there but undefined is a caller's mistake, which must not turn a check off. */
function readBytes(options: VerifyOptions, name: "publicKey" | "userData"): Uint8Array | undefined {
  if (!(name in options)) return undefined;
  const value: unknown = options[name];
  if (isBytes(value)) return new Uint8Array(value);
  throw new TypeError(`${name}: got no Uint8Array, expected one, or no ${name} at all`);
}

function readRoots(roots: readonly string[]): readonly string[] {
  const valid =
    Array.isArray(roots) && roots.length > 0 && roots.every((root) => /^[0-9a-fA-F]{64}$/.test(root));
  if (valid) return roots.map((root) => root.toLowerCase());
  throw new TypeError("roots: expected a list of SHA-256 fingerprints, 64 hexadecimal digits each");
}

/** NaN would make every comparison false. */
function readTime(name: string, value: number): number {
  if (typeof value === "number" && Number.isFinite(value) && value >= 0) return value;
  throw new RangeError(`${name}: got ${value}, expected milliseconds`);
}
