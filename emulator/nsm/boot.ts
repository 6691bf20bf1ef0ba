/** The registers as the hypervisor leaves them to an enclave that boots: from its image and from its parent. */
import { createHash } from "node:crypto";
import { type Measurements, measureParent, measurePcr8 } from "../../format/measurement.ts";
import { type EifSignature, verifySignature } from "../../format/signature.ts";
import { Registers } from "./registers.ts";

/** What the hypervisor knows of the parent. */
export interface ParentIdentity {
  /** IAM role of the instance: PCR3 is made from it, and zero without one. */
  readonly roleArn: string | undefined;
  /** PCR4 is made from it. */
  readonly instanceId: string;
}

/** What the emulated hypervisor attests, besides the image. */
export interface NsmOptions {
  /** IAM role of the parent, `arn:aws:iam::…:role/…`: PCR3 is made from it. Default: none, PCR3 is zero. */
  readonly roleArn?: string;
  /** The parent, `i-` and hexadecimal digits: PCR4 is made from it. Default: `i-0000000000000000`. */
  readonly instanceId?: string;
  /** Folder of the development root, made where there is none. Default: the user's, in the XDG data directory. */
  readonly root?: string;
  /** Unix milliseconds by the hypervisor's clock. Default: this machine's. */
  readonly now?: () => number;
  /** Awaited before each answer, for tests of a module that is slow. Default: nothing. */
  readonly pause?: () => Promise<void>;
}

/** As launcher/id.ts names an instance that is none. */
const NO_INSTANCE = "i-0000000000000000";

/** Throws RangeError. */
export function parentIdentity({ instanceId = NO_INSTANCE, roleArn }: NsmOptions): ParentIdentity {
  if (!/^i-[0-9a-f]{1,17}$/.test(instanceId)) {
    throw new RangeError(
      `nsm.instanceId: got "${instanceId}", expected i- and at most 17 hexadecimal digits`,
    );
  }
  return { instanceId, roleArn };
}

export interface BootFacts extends ParentIdentity {
  readonly debug: boolean;
  readonly measurements: Measurements;
  readonly signature: EifSignature | undefined;
}

const createSha384 = () => createHash("sha384");

/** AWS user guide, "Cryptographic attestation": the table of PCRs; in debug mode all of them are zeros. */
export async function bootRegisters(facts: BootFacts): Promise<Registers> {
  if (facts.debug) return new Registers(new Map());
  const { pcr0, pcr1, pcr2 } = facts.measurements;
  const values = new Map([
    [0, pcr0],
    [1, pcr1],
    [2, pcr2],
    [4, measureParent(facts.instanceId, createSha384)],
  ]);
  if (facts.roleArn !== undefined) values.set(3, measureParent(facts.roleArn, createSha384));
  if (facts.signature !== undefined) {
    if (!(await verifySignature(facts.signature, pcr0))) {
      throw new Error("the image's signature is not of this image");
    }
    values.set(8, measurePcr8(facts.signature.certificate.der, createSha384));
  }
  return new Registers(values);
}
