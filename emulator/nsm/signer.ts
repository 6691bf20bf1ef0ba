/**
 * Who signs the documents of emulated enclaves: a chain of Nitro's depth and lifetimes under the development root. Source
 * of the shape: documents that hardware made (region 20 days, zone 6, instance one, enclave three hours).
 */
import { signAttestation } from "../../format/attestation.ts";
import {
  type CertificateRequest,
  createKeyPair,
  exportSpki,
  issueCertificate,
} from "../../format/authority.ts";
import { decodeCertificate } from "../../format/certificate.ts";
import { authority, BACKDATED_MS, leaf, ORGANIZATION, serial } from "./certificate.ts";
import type { Statement } from "./module.ts";
import { type DevelopmentRoot, openDevelopmentRoot } from "./root.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const LEAF_MS = 3 * HOUR_MS;
/** A document is worth nothing once its chain has expired, so a certificate near its end signs no more. */
const RENEW_MS = 30 * 60_000;

/** One step of the chain: a certificate with its key, and those above it. */
interface Link {
  readonly key: CryptoKey;
  readonly subject: CertificateRequest["subject"];
  readonly spki: Uint8Array;
  readonly notAfter: number;
  /** DER, the root first, this one last. */
  readonly chain: readonly Uint8Array[];
}

/** Signs for one enclave. */
export interface Signer {
  sign(statement: Statement): Promise<Uint8Array>;
}

export class SigningAuthority {
  readonly #folder: string | undefined;
  readonly #now: () => number;
  #root: Promise<DevelopmentRoot> | undefined;
  #zone: Link | undefined;

  /** `folder`: where the development root lies; default: the user's. */
  constructor(folder?: string, now: () => number = Date.now) {
    this.#folder = folder;
    this.#now = now;
  }

  /** Rejects with E_DEVELOPMENT_ROOT. One that failed is tried again. */
  root(): Promise<DevelopmentRoot> {
    this.#root ??= openDevelopmentRoot(this.#folder).catch((error: unknown) => {
      this.#root = undefined;
      throw error;
    });
    return this.#root;
  }

  /** Its certificate is made for the first document, and again before it expires. */
  signerFor(moduleId: string, instanceId: string): Signer {
    let link: Link | undefined;
    return {
      sign: async (statement) => {
        if (link === undefined || this.#now() > link.notAfter - RENEW_MS) {
          link = await this.#certify(moduleId, instanceId);
        }
        const { key, chain } = link;
        const certificate = chain.at(-1) as Uint8Array;
        return signAttestation({ ...statement, certificate, caBundle: chain.slice(0, -1) }, key);
      },
    };
  }

  async #certify(moduleId: string, instanceId: string): Promise<Link> {
    const zone = await this.#currentZone();
    const instance = await this.#issue(zone, `${instanceId}.emulator`, DAY_MS, 0);
    return this.#issue(instance, `${moduleId}.emulator`, LEAF_MS, undefined);
  }

  /** Region and zone: for all enclaves of this process. */
  async #currentZone(): Promise<Link> {
    if (this.#zone === undefined || this.#now() > this.#zone.notAfter - 2 * DAY_MS) {
      this.#zone = await this.#issueZone();
    }
    return this.#zone;
  }

  async #issueZone(): Promise<Link> {
    const { key, certificate } = await this.root();
    const { subject, publicKey, notAfter } = decodeCertificate(certificate);
    const root: Link = { key, subject, spki: publicKey.spki, notAfter, chain: [certificate] };
    const region = await this.#issue(root, "region.emulator", 20 * DAY_MS, 2);
    return this.#issue(region, "zone.region.emulator", 6 * DAY_MS, 1);
  }

  /** `pathLength` undefined: no authority. */
  async #issue(above: Link, name: string, lifetimeMs: number, pathLength: number | undefined): Promise<Link> {
    const { privateKey, publicKey } = await createKeyPair(false);
    const spki = await exportSpki(publicKey);
    const subject = [...ORGANIZATION, { name: "commonName", value: name }];
    const now = this.#now();
    const notAfter = now + lifetimeMs;
    const rights = pathLength === undefined ? leaf(spki) : authority(spki, above.spki, pathLength);
    const names = { serial: serial(), issuer: above.subject, subject };
    const request = { ...names, notBefore: now - BACKDATED_MS, notAfter, ...rights };
    const certificate = await issueCertificate(request, above.key);
    return { key: privateKey, subject, spki, notAfter, chain: [...above.chain, certificate] };
  }
}
