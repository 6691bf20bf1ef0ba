/** The Nitro Secure Module for apps: attestation documents, registers, random bytes. Source: aws-nitro-enclaves-nsm-api. */
import { PORTABLE_MAX, PUBLIC_KEY_MAX } from "../format/attestation.ts";
import { isBinding } from "../format/binding.ts";
import { CloisterError, mismatch } from "../format/failure.ts";
import {
  decodeNsmResponse,
  encodeNsmRequest,
  NSM_PCR_COUNT,
  NSM_REQUEST_MAX,
  type NsmDescription,
  type NsmErrorName,
  type NsmRequest,
  type NsmResponse,
} from "../format/nsm.ts";
import { concat } from "../format/struct.ts";
import type { NsmModule } from "./module.ts";
import { inEnclave } from "./place.ts";

export interface AttestOptions {
  /** The asker's, at most 512 bytes: proves that the document is no older than the question. */
  readonly nonce?: Uint8Array | undefined;
  /** The app's own, at most 512 bytes; of what is longer, put in the hash. */
  readonly userData?: Uint8Array | undefined;
  /** A key that the app made, 1 to 1024 bytes; AWS KMS takes SubjectPublicKeyInfo (DER) and encrypts to it. */
  readonly publicKey?: Uint8Array | undefined;
}

export interface Register {
  /** 48 bytes. */
  readonly value: Uint8Array;
  readonly locked: boolean;
}

const CODES = {
  InvalidArgument: "E_NSM_INVALID_ARGUMENT",
  InvalidIndex: "E_NSM_INVALID_INDEX",
  InvalidResponse: "E_NSM_INVALID_RESPONSE",
  ReadOnlyIndex: "E_NSM_READ_ONLY_INDEX",
  InvalidOperation: "E_NSM_INVALID_OPERATION",
  BufferTooSmall: "E_NSM_BUFFER_TOO_SMALL",
  InputTooLarge: "E_NSM_INPUT_TOO_LARGE",
  InternalError: "E_NSM_INTERNAL_ERROR",
} as const;

export type NsmErrorCode = (typeof CODES)[keyof typeof CODES];

/** The module refused a request. `reason` is its own word for it, `code` the catalogue's. */
export class NsmError extends CloisterError {
  declare readonly code: NsmErrorCode;
  readonly reason: Exclude<NsmErrorName, "Success">;

  constructor(where: string, reason: Exclude<NsmErrorName, "Success">) {
    super(CODES[reason], `${where}: got ${reason}, expected it done`, { got: reason });
    this.name = "NsmError";
    this.reason = reason;
  }
}

/**
 * Have the hypervisor sign what runs here: an attestation document, binary, for `verifyAttestation` of `cloister/verify`
 * or AWS KMS. Rejects with TypeError or RangeError for options beyond their limits, before the module is asked; with
 * NsmError, or E_NO_NSM.
 */
export async function attest(options: AttestOptions = {}): Promise<Uint8Array> {
  const { userData } = options;
  // An app that passes on its caller's bytes must not vouch for its caller's keys.
  if (userData instanceof Uint8Array && isBinding(userData)) {
    throw new RangeError('attest: userData: got bytes that begin with "cloister", expected others');
  }
  return attestBinding(options);
}

/** The same for the runtime itself, which alone may put a binding into `userData`. */
export async function attestBinding(options: AttestOptions): Promise<Uint8Array> {
  const module = moduleFor("attest");
  const { document } = await ask(module, "attest", {
    type: "Attestation",
    nonce: optional("attest: nonce", options.nonce, 0, PORTABLE_MAX),
    userData: optional("attest: userData", options.userData, 0, PORTABLE_MAX),
    publicKey: optional("attest: publicKey", options.publicKey, 1, PUBLIC_KEY_MAX),
  });
  return document.slice();
}

/** `index` is 0 to 31. All reject with NsmError, E_NO_NSM, or RangeError and TypeError for impossible arguments. */
export const nsm = {
  /** Version, module id, which registers are locked. */
  async describe(): Promise<NsmDescription> {
    const { type: _, ...description } = await ask(moduleFor("nsm.describe"), "nsm.describe", {
      type: "DescribeNSM",
    });
    return description;
  },

  async pcr(index: number): Promise<Register> {
    const where = `nsm.pcr(${index})`;
    const module = moduleFor("nsm.pcr");
    const { data, lock } = await ask(module, where, { type: "DescribePCR", index: register(where, index) });
    return { value: data.slice(), locked: lock };
  },

  /** SHA384(value ‖ data) becomes the value; resolves with it. `data`: up to what a request of 4096 bytes has room for. */
  async extendPcr(index: number, data: Uint8Array): Promise<Uint8Array> {
    const where = `nsm.extendPcr(${index})`;
    const module = moduleFor("nsm.extendPcr");
    const request = {
      type: "ExtendPCR",
      index: register(where, index),
      data: bytes(`${where}: data`, data),
    } as const;
    return (await ask(module, where, request)).data.slice();
  },

  /** From here on the register keeps its value, and documents have it. One that is locked already is ReadOnlyIndex. */
  async lockPcr(index: number): Promise<void> {
    const where = `nsm.lockPcr(${index})`;
    await ask(moduleFor("nsm.lockPcr"), where, { type: "LockPCR", index: register(where, index) });
  },

  /** Lock the registers 0 to `count` - 1, those that are locked already too; `count` is 0 to 32. */
  async lockPcrsBelow(count: number): Promise<void> {
    const where = `nsm.lockPcrsBelow(${count})`;
    const module = moduleFor("nsm.lockPcrsBelow");
    await ask(module, where, { type: "LockPCRs", range: integer(where, count, NSM_PCR_COUNT) });
  },

  /**
   * Random bytes of the module itself, 256 a request. The kernel's generator was seeded with such, so
   * `crypto.getRandomValues` is as good and much faster. `count` is 0 to 65536.
   */
  async random(count: number): Promise<Uint8Array> {
    const where = `nsm.random(${count})`;
    const module = moduleFor("nsm.random");
    const pieces: Uint8Array[] = [];
    for (let left = integer(where, count, RANDOM_MAX); left > 0; ) {
      const { random } = await ask(module, where, { type: "GetRandom" });
      if (random.length === 0) throw mismatch("E_NSM", where, "0 bytes", "1 to 256");
      pieces.push(random.subarray(0, left));
      left -= random.length;
    }
    return concat(pieces);
  },
} as const;

/** As crypto.getRandomValues. */
const RANDOM_MAX = 65_536;

function moduleFor(what: string): NsmModule {
  const { nsm: module } = inEnclave(what);
  if (module !== undefined) return module;
  throw new CloisterError("E_NO_NSM", `${what}: got no /dev/nsm, expected one`);
}

type Answer<T extends NsmRequest["type"]> = Extract<NsmResponse, { type: T }>;

/** Every answer has its request's name, or is an error. */
async function ask<T extends NsmRequest["type"]>(
  module: NsmModule,
  where: string,
  request: Extract<NsmRequest, { type: T }>,
): Promise<Answer<T>> {
  const encoded = encodeNsmRequest(request);
  if (encoded.length > NSM_REQUEST_MAX) {
    throw new RangeError(
      `${where}: got a request of ${encoded.length} bytes, expected at most ${NSM_REQUEST_MAX}`,
    );
  }
  const response = decodeNsmResponse(await module.exchange(encoded));
  if (response.type === request.type) return response as Answer<T>;
  if (response.type === "Error" && response.error !== "Success") throw new NsmError(where, response.error);
  throw mismatch("E_NSM", where, `the answer ${response.type}`, request.type);
}

function register(where: string, index: number): number {
  return integer(where, index, NSM_PCR_COUNT - 1);
}

function integer(where: string, value: number, most: number): number {
  if (Number.isInteger(value) && value >= 0 && value <= most) return value;
  throw new RangeError(`${where}: got ${value}, expected an integer from 0 to ${most}`);
}

function bytes(where: string, value: Uint8Array): Uint8Array {
  if (value instanceof Uint8Array) return value;
  throw new TypeError(`${where}: got ${typeof value}, expected a Uint8Array`);
}

function optional(
  where: string,
  value: Uint8Array | undefined,
  least: number,
  most: number,
): Uint8Array | null {
  if (value === undefined) return null;
  const { length } = bytes(where, value);
  if (length >= least && length <= most) return value;
  throw new RangeError(`${where}: got ${length} bytes, expected ${least} to ${most}`);
}
