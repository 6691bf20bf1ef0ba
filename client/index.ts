/** `cloister/client`: call an enclave that was attested first. Browsers, Node, Deno, Bun. */
export { CloisterError } from "../format/failure.ts";
export {
  type BuildOutput,
  type PcrSet,
  type Policy,
  policyFromBuild,
  readPolicy,
} from "../format/policy.ts";
export { AWS_ROOT_G1, fingerprint } from "../format/roots.ts";
export { AttestationError, type Step } from "../format/step.ts";
export type { Verified } from "../format/verify.ts";
export type { AttestOptions } from "./attest.ts";
export { type Client, type ClientOptions, createClient } from "./client.ts";
