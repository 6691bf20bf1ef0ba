/**
 * PCR values from an image's parts. PCR = SHA384(48 zero bytes ‖ SHA384(content)) for 0, 1, 2 and 8.
 * Source: image-format README, "Enclave measurements", and `src/utils/eif_hasher.rs`.
 */
import { sha384 } from "@noble/hashes/sha2.js";
import { SectionType } from "./eif.ts";

export const PCR_SIZE = 48;

/** A running SHA-384. node:crypto's `Hash` is one: pass `() => createHash("sha384")`, eight times faster. */
export interface Sha384 {
  update(data: Uint8Array): unknown;
  digest(): Uint8Array;
  /** An independent hash in the same state. */
  copy(): Sha384;
}

export type CreateSha384 = () => Sha384;

function nobleSha384(hash = sha384.create()): Sha384 {
  return {
    update: (data) => hash.update(data),
    digest: () => hash.digest(),
    copy: () => nobleSha384(hash.clone()),
  };
}

/** The isomorphic default, @noble/hashes. */
export const createSha384: CreateSha384 = () => nobleSha384();

/** 48 bytes each. */
export interface Measurements {
  /** kernel ‖ cmdline ‖ every ramdisk. */
  readonly pcr0: Uint8Array;
  /** kernel ‖ cmdline ‖ first ramdisk. */
  readonly pcr1: Uint8Array;
  /** every ramdisk but the first. */
  readonly pcr2: Uint8Array;
}

/**
 * Measures sections as they pass: `section(type)`, then `update` for its data, in file order; `digest` at the end.
 * Section headers, metadata and signature are not measured. PCR1 is PCR0's hash copied where the first ramdisk ends,
 * so the bytes they share are hashed once; only the later ramdisks, which PCR2 needs from their own start, pass twice.
 */
export class Measurer {
  readonly #create: CreateSha384;
  #image: Sha384;
  #app: Sha384;
  /** PCR1's content, from the moment a second ramdisk begins. */
  #bootstrap: Sha384 | undefined;
  #ramdisks = 0;
  #type: SectionType | undefined;

  /** Whether data of this section type is part of any register. */
  static measures(type: SectionType): boolean {
    return type === SectionType.Kernel || type === SectionType.Cmdline || type === SectionType.Ramdisk;
  }

  constructor(create: CreateSha384 = createSha384) {
    this.#create = create;
    this.#image = create();
    this.#app = create();
  }

  /** Begin the next section. */
  section(type: SectionType): void {
    this.#type = type;
    if (type !== SectionType.Ramdisk) return;
    this.#ramdisks++;
    if (this.#ramdisks === 2) this.#bootstrap = this.#image.copy();
  }

  /** More data of the current section. */
  update(data: Uint8Array): void {
    if (this.#type === undefined) throw new Error("BUG: data before any section");
    if (!Measurer.measures(this.#type)) return;
    this.#image.update(data);
    if (this.#type === SectionType.Ramdisk && this.#ramdisks > 1) this.#app.update(data);
  }

  /** An independent measurer in the same state: one kept after the first ramdisk measures app after app. */
  copy(): Measurer {
    const twin = new Measurer(this.#create);
    twin.#image = this.#image.copy();
    twin.#app = this.#app.copy();
    twin.#bootstrap = this.#bootstrap?.copy();
    twin.#ramdisks = this.#ramdisks;
    twin.#type = this.#type;
    return twin;
  }

  /** The values for what has passed so far. More sections may follow. */
  digest(): Measurements {
    const bootstrap = this.#bootstrap ?? this.#image;
    return {
      pcr0: this.#extend(this.#image),
      pcr1: this.#extend(bootstrap),
      pcr2: this.#extend(this.#app),
    };
  }

  #extend(content: Sha384): Uint8Array {
    return extend(content.copy().digest(), this.#create);
  }
}

/** SHA384(48 zero bytes ‖ data): a register that was zero, extended once. 48 bytes. */
function extend(data: Uint8Array, create: CreateSha384): Uint8Array {
  const hash = create();
  hash.update(new Uint8Array(PCR_SIZE));
  hash.update(data);
  return hash.digest();
}

/** PCR8 of a signed image: `certificate` is the signing certificate as DER, without its PEM armour. */
export function measurePcr8(certificate: Uint8Array, create: CreateSha384 = createSha384): Uint8Array {
  const hash = create();
  hash.update(certificate);
  return extend(hash.digest(), create);
}

/**
 * PCR3 from the ARN of the parent instance's IAM role, PCR4 from the parent's instance id (`i-07e25f3bada361dec`).
 * Their text is not hashed beforehand, unlike the content of all other registers.
 */
export function measureParent(text: string, create: CreateSha384 = createSha384): Uint8Array {
  return extend(new TextEncoder().encode(text), create);
}
