/** The steps of a verification: what a page shows of it, and how it fails. */
import type { ErrorCode } from "./errors.ts";
import { CloisterError } from "./failure.ts";

/** In this order; what is checked, in words. */
const STEPS = {
  envelope: [
    "E_ATTESTATION_FORMAT",
    "The document is a COSE_Sign1 for ES384, encoded in the one way there is",
  ],
  fields: ["E_ATTESTATION_FORMAT", "It has all fields of an attestation document, each within its limits"],
  root: ["E_ATTESTATION_ROOT", "Its chain of certificates begins with a root that is trusted"],
  chain: ["E_ATTESTATION_CHAIN", "Each certificate was valid, allowed to sign the next one, and did"],
  signature: ["E_ATTESTATION_SIGNATURE", "The last certificate's key signed the document"],
  time: ["E_ATTESTATION_TIME", "It was made just now"],
  mode: ["E_ATTESTATION_DEBUG", "The enclave does not run in debug mode"],
  build: ["E_ATTESTATION_DEVELOPMENT", "The image was not built for development"],
  nonce: ["E_ATTESTATION_NONCE", "It answers the nonce that was sent"],
  registers: ["E_ATTESTATION_PCRS", "What runs in the enclave is what the policy accepts"],
  "public key": ["E_ATTESTATION_BINDING", "The enclave put in the public key that is expected"],
  "user data": ["E_ATTESTATION_BINDING", "The enclave put in the user data that are expected"],
} as const satisfies Record<string, readonly [ErrorCode, string]>;

export type StepName = keyof typeof STEPS;

export interface Step {
  readonly name: StepName;
  /** skipped: nothing to compare with was given. */
  readonly status: "passed" | "failed" | "skipped";
  /** What is checked, in words. */
  readonly checked: string;
  /** What the document has. */
  readonly got: string;
  /** Of a failed step: what it should have had. */
  readonly expected?: string;
}

/** A document that does not prove what it should. `got` and `expected` are the failed step's. */
export class AttestationError extends CloisterError {
  readonly step: StepName;
  /** Up to the one that failed, which is the last. Of the others, none says anything without it. */
  readonly steps: readonly Step[];

  constructor(cause: CloisterError, failed: Step, before: readonly Step[]) {
    const [code] = STEPS[failed.name];
    super(code, `${failed.name}: ${cause.message}`, {
      cause,
      got: failed.got,
      expected: failed.expected ?? "",
    });
    this.name = "AttestationError";
    this.step = failed.name;
    this.steps = [...before, failed];
  }
}

/** Steps as they are taken. */
export class StepList {
  readonly #steps: Step[] = [];

  get passed(): readonly Step[] {
    return this.#steps;
  }

  /** `work` returns its result and what it found. Its CloisterError becomes the AttestationError of this step. */
  async run<T>(name: StepName, work: () => [T, string] | Promise<[T, string]>): Promise<T> {
    const checked = STEPS[name][1];
    try {
      const [result, got] = await work();
      this.#steps.push({ name, status: "passed", checked, got });
      return result;
    } catch (error) {
      if (!(error instanceof CloisterError)) throw error;
      const { got = "something else", expected = "what its format asks for" } = error;
      throw new AttestationError(error, { name, status: "failed", checked, got, expected }, this.#steps);
    }
  }

  /** Nothing to compare with. */
  skip(name: StepName, got: string): void {
    this.#steps.push({ name, status: "skipped", checked: STEPS[name][1], got });
  }
}
