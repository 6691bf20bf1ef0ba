/**
 * Messages of the Nitro Secure Module: one CBOR item each, serde's externally tagged enums. Source: aws-nitro-enclaves-
 * nsm-api `src/api/mod.rs`. Encoders keep its key order; decoders take any, because QEMU's differs.
 */
import { type CborKey, type CborValue, decodeCbor, encodeCbor } from "./cbor.ts";
import { mismatch } from "./errors.ts";

/** Longest request the driver passes on, and the buffer it gives for an answer, bytes: linux drivers/misc/nsm.c. */
export const NSM_REQUEST_MAX = 0x1000;
export const NSM_RESPONSE_MAX = 0x3000;
/** PCR indexes are 0 to 31; 0 to 15 are locked at boot. */
export const NSM_PCR_COUNT = 32;

/** nsm-api `src/api/mod.rs`, ErrorCode. */
const ERROR_NAMES = [
  "Success",
  "InvalidArgument",
  "InvalidIndex",
  "InvalidResponse",
  "ReadOnlyIndex",
  "InvalidOperation",
  "BufferTooSmall",
  "InputTooLarge",
  "InternalError",
] as const;
export type NsmErrorName = (typeof ERROR_NAMES)[number];

export type NsmRequest =
  | { readonly type: "GetRandom" }
  | { readonly type: "DescribeNSM" }
  /** `index` is an unsigned 16-bit integer; the module refuses those beyond its registers. */
  | { readonly type: "DescribePCR"; readonly index: number }
  | { readonly type: "ExtendPCR"; readonly index: number; readonly data: Uint8Array }
  | { readonly type: "LockPCR"; readonly index: number }
  /** Locks the registers below `range`. */
  | { readonly type: "LockPCRs"; readonly range: number }
  | {
      readonly type: "Attestation";
      readonly userData: Uint8Array | null;
      readonly nonce: Uint8Array | null;
      readonly publicKey: Uint8Array | null;
    };

export interface NsmDescription {
  readonly versionMajor: number;
  readonly versionMinor: number;
  readonly versionPatch: number;
  readonly moduleId: string;
  readonly maxPcrs: number;
  readonly lockedPcrs: readonly number[];
  /** `SHA384` on all known hardware. */
  readonly digest: string;
}

export type NsmResponse =
  | { readonly type: "GetRandom"; readonly random: Uint8Array }
  | ({ readonly type: "DescribeNSM" } & NsmDescription)
  | { readonly type: "DescribePCR"; readonly lock: boolean; readonly data: Uint8Array }
  | { readonly type: "ExtendPCR"; readonly data: Uint8Array }
  | { readonly type: "LockPCR" }
  | { readonly type: "LockPCRs" }
  | { readonly type: "Attestation"; readonly document: Uint8Array }
  | { readonly type: "Error"; readonly error: NsmErrorName };

/** A variant without fields is its name, one with fields a map of one entry. */
function encodeVariant(name: string, fields?: Readonly<Record<string, CborValue>>): Uint8Array {
  return encodeCbor(fields === undefined ? name : new Map([[name, new Map(Object.entries(fields))]]));
}

export function encodeNsmRequest(request: NsmRequest): Uint8Array {
  switch (request.type) {
    case "GetRandom":
    case "DescribeNSM":
      return encodeVariant(request.type);
    case "DescribePCR":
    case "LockPCR":
      return encodeVariant(request.type, { index: request.index });
    case "ExtendPCR":
      return encodeVariant(request.type, { index: request.index, data: request.data });
    case "LockPCRs":
      return encodeVariant(request.type, { range: request.range });
    case "Attestation": {
      const { userData, nonce, publicKey } = request;
      return encodeVariant(request.type, { user_data: userData, nonce, public_key: publicKey });
    }
  }
}

/** Throws E_CBOR or E_NSM; a module answers either with InvalidOperation. */
export function decodeNsmRequest(bytes: Uint8Array): NsmRequest {
  const fields = Fields.decode(bytes, "NSM request");
  const type = fields.variant;
  switch (type) {
    case "GetRandom":
    case "DescribeNSM":
      return { type };
    case "DescribePCR":
    case "LockPCR":
      return { type, index: fields.integer("index", U16_MAX) };
    case "ExtendPCR":
      return { type, index: fields.integer("index", U16_MAX), data: fields.bytes("data") };
    case "LockPCRs":
      return { type, range: fields.integer("range", U16_MAX) };
    case "Attestation": {
      const [userData, nonce, publicKey] = ["user_data", "nonce", "public_key"].map((name) =>
        fields.optionalBytes(name),
      );
      return { type, userData: userData ?? null, nonce: nonce ?? null, publicKey: publicKey ?? null };
    }
    default:
      throw mismatch("E_NSM", "NSM request", JSON.stringify(type), "a command");
  }
}

export function encodeNsmResponse(response: NsmResponse): Uint8Array {
  switch (response.type) {
    case "LockPCR":
    case "LockPCRs":
      return encodeVariant(response.type);
    case "DescribePCR":
      return encodeVariant(response.type, { lock: response.lock, data: response.data });
    case "ExtendPCR":
      return encodeVariant(response.type, { data: response.data });
    case "Attestation":
      return encodeVariant(response.type, { document: response.document });
    case "GetRandom":
      return encodeVariant(response.type, { random: response.random });
    case "Error":
      return encodeCbor(new Map([["Error", response.error]]));
    case "DescribeNSM":
      return encodeVariant(response.type, {
        version_major: response.versionMajor,
        version_minor: response.versionMinor,
        version_patch: response.versionPatch,
        module_id: response.moduleId,
        max_pcrs: response.maxPcrs,
        locked_pcrs: response.lockedPcrs,
        digest: response.digest,
      });
  }
}

/** Throws E_CBOR or E_NSM. A module's refusal is no exception here but the response `Error`. */
export function decodeNsmResponse(bytes: Uint8Array): NsmResponse {
  const fields = Fields.decode(bytes, "NSM response");
  const type = fields.variant;
  switch (type) {
    case "LockPCR":
    case "LockPCRs":
      return { type };
    case "DescribePCR":
      return { type, lock: fields.boolean("lock"), data: fields.bytes("data") };
    case "ExtendPCR":
      return { type, data: fields.bytes("data") };
    case "Attestation":
      return { type, document: fields.bytes("document") };
    case "GetRandom":
      return { type, random: fields.bytes("random") };
    case "Error":
      return { type, error: fields.errorName() };
    case "DescribeNSM":
      return {
        type,
        versionMajor: fields.integer("version_major", U16_MAX),
        versionMinor: fields.integer("version_minor", U16_MAX),
        versionPatch: fields.integer("version_patch", U16_MAX),
        moduleId: fields.text("module_id"),
        maxPcrs: fields.integer("max_pcrs", U16_MAX),
        lockedPcrs: fields.integers("locked_pcrs", U16_MAX),
        digest: fields.text("digest"),
      };
    default:
      throw mismatch("E_NSM", "NSM response", JSON.stringify(type), "an answer");
  }
}

const U16_MAX = 0xffff;

/** The fields of one variant, by name. */
class Fields {
  readonly variant: string;
  readonly #where: string;
  readonly #value: CborValue;

  private constructor(variant: string, value: CborValue, where: string) {
    this.variant = variant;
    this.#value = value;
    this.#where = where;
  }

  static decode(bytes: Uint8Array, what: string): Fields {
    const item = decodeCbor(bytes);
    if (typeof item === "string") return new Fields(item, null, what);
    const [entry] = item instanceof Map && item.size === 1 ? (item as ReadonlyMap<CborKey, CborValue>) : [];
    if (entry === undefined || typeof entry[0] !== "string") {
      throw mismatch("E_NSM", what, "another item", "a name, or a map of one name");
    }
    return new Fields(entry[0], entry[1], `${what} ${entry[0]}`);
  }

  #get(name: string): CborValue | undefined {
    return this.#value instanceof Map
      ? (this.#value as ReadonlyMap<CborKey, CborValue>).get(name)
      : undefined;
  }

  #wrong(name: string, expected: string): Error {
    const value = this.#get(name);
    return mismatch(
      "E_NSM",
      `${this.#where}: ${name}`,
      value === undefined ? "nothing" : "something else",
      expected,
    );
  }

  integer(name: string, most: number): number {
    const value = this.#get(name);
    if (typeof value === "number" && value >= 0 && value <= most) return value;
    throw this.#wrong(name, `0 to ${most}`);
  }

  integers(name: string, most: number): number[] {
    const value = this.#get(name);
    const valid =
      Array.isArray(value) && value.every((item) => typeof item === "number" && item >= 0 && item <= most);
    if (valid) return value as number[];
    throw this.#wrong(name, `an array of 0 to ${most}`);
  }

  bytes(name: string): Uint8Array {
    const value = this.#get(name);
    if (value instanceof Uint8Array) return value;
    throw this.#wrong(name, "bytes");
  }

  /** serde takes an absent Option for None. */
  optionalBytes(name: string): Uint8Array | null {
    const value = this.#get(name);
    return value === undefined || value === null ? null : this.bytes(name);
  }

  text(name: string): string {
    const value = this.#get(name);
    if (typeof value === "string") return value;
    throw this.#wrong(name, "text");
  }

  boolean(name: string): boolean {
    const value = this.#get(name);
    if (typeof value === "boolean") return value;
    throw this.#wrong(name, "true or false");
  }

  errorName(): NsmErrorName {
    const found = ERROR_NAMES.find((name) => name === this.#value);
    if (found !== undefined) return found;
    throw mismatch("E_NSM", this.#where, "another value", ERROR_NAMES.join(" | "));
  }
}
