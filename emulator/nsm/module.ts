/** The Nitro Secure Module of one emulated enclave: a request's bytes in, the answer's out. */
import { randomBytes } from "node:crypto";
import {
  type AttestationDocument,
  NONCE_MAX,
  PUBLIC_KEY_MAX,
  USER_DATA_MAX,
} from "../../format/attestation.ts";
import { CloisterError } from "../../format/failure.ts";
import {
  decodeNsmRequest,
  encodeNsmResponse,
  NSM_PCR_COUNT,
  NSM_REQUEST_MAX,
  type NsmRequest,
  type NsmResponse,
} from "../../format/nsm.ts";
import { NsmRefusal, type Registers } from "./registers.ts";

/** What hardware and QEMU give for one GetRandom, bytes. */
const RANDOM_SIZE = 256;

/** A document but for what its signer adds. */
export type Statement = Omit<AttestationDocument, "certificate" | "caBundle">;

export interface ModuleOptions {
  readonly moduleId: string;
  /** Once the hypervisor has measured the image; requests wait for it. */
  readonly registers: Promise<Registers>;
  /** Rejects where the signer has no key. */
  readonly sign: (statement: Statement) => Promise<Uint8Array>;
  /** Why the module answered InternalError. */
  readonly onError: (error: unknown) => void;
  /** Unix milliseconds by the hypervisor's clock. Default: this machine's. */
  readonly now?: (() => number) | undefined;
  /** Awaited before each answer: a module that is slow. */
  readonly pause?: (() => Promise<void>) | undefined;
}

export class NsmModule {
  readonly #options: ModuleOptions;
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: ModuleOptions) {
    this.#options = options;
  }

  /** Never rejects, whatever the bytes are. One request at a time, as the device has it. */
  answer(request: Uint8Array): Promise<Uint8Array> {
    const answered = this.#last.then(() => this.#answer(request));
    this.#last = answered;
    return answered;
  }

  async #answer(bytes: Uint8Array): Promise<Uint8Array> {
    try {
      await this.#options.pause?.();
      if (bytes.length > NSM_REQUEST_MAX) throw new NsmRefusal("InputTooLarge");
      return encodeNsmResponse(await this.#perform(decode(bytes), await this.#options.registers));
    } catch (error) {
      if (!(error instanceof NsmRefusal)) this.#options.onError(error);
      const reason = error instanceof NsmRefusal ? error.reason : "InternalError";
      return encodeNsmResponse({ type: "Error", error: reason });
    }
  }

  async #perform(request: NsmRequest, registers: Registers): Promise<NsmResponse> {
    const { type } = request;
    switch (type) {
      case "GetRandom":
        return { type, random: randomBytes(RANDOM_SIZE) };
      case "DescribeNSM":
        return { type, ...this.#describe(registers) };
      case "DescribePCR": {
        const { value, locked } = registers.describe(request.index);
        return { type, lock: locked, data: value };
      }
      case "ExtendPCR":
        return { type, data: registers.extend(request.index, request.data) };
      case "LockPCR":
        registers.lock(request.index);
        return { type };
      case "LockPCRs":
        registers.lockBelow(request.range);
        return { type };
      case "Attestation":
        return { type, document: await this.#attest(request, registers) };
    }
  }

  #describe(registers: Registers) {
    return {
      ...{ versionMajor: 1, versionMinor: 0, versionPatch: 0 },
      moduleId: this.#options.moduleId,
      maxPcrs: NSM_PCR_COUNT,
      lockedPcrs: [...registers.locked.keys()],
      digest: "SHA384",
    };
  }

  #attest(
    { userData, nonce, publicKey }: Extract<NsmRequest, { type: "Attestation" }>,
    registers: Registers,
  ): Promise<Uint8Array> {
    limit(userData, USER_DATA_MAX);
    limit(nonce, NONCE_MAX);
    limit(publicKey, PUBLIC_KEY_MAX);
    // Such a document would be malformed: attestation_process.md §3.2.2.2, 1 to 1024 bytes.
    if (publicKey?.length === 0) throw new NsmRefusal("InvalidArgument");
    const { moduleId, now = Date.now } = this.#options;
    const pcrs = registers.locked;
    return this.#options.sign({
      ...{ moduleId, digest: "SHA384", timestamp: now(), pcrs },
      ...{ publicKey, userData, nonce },
    });
  }
}

function decode(bytes: Uint8Array): NsmRequest {
  try {
    return decodeNsmRequest(bytes);
  } catch (error) {
    if (error instanceof CloisterError) throw new NsmRefusal("InvalidOperation");
    throw error;
  }
}

function limit(value: Uint8Array | null, most: number): void {
  if (value !== null && value.length > most) throw new NsmRefusal("InputTooLarge");
}
