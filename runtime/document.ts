/** GET ATTESTATION_PATH: a document that answers the asker's nonce and vouches for the enclave's keys. */
import { ATTESTATION_CONTENT_TYPE, PORTABLE_MAX } from "../format/attestation.ts";
import { encodeBinding, hashKey } from "../format/binding.ts";
import { answerBytes, answerText } from "./answer.ts";
import { Gate } from "./gate.ts";
import type { MessageKeys } from "./keys.ts";
import type { AttestOptions } from "./nsm.ts";

/**
 * Of all askers together: they all come through the parent. The NSM answers one at a time, and on hardware its ioctl
 * holds up the event loop: the app must get its share of both.
 */
const GATE = { rate: 20, burst: 40, pending: 40 } as const;
/** Bytes. */
const NONCE_MIN = 16;
const NONCE = new RegExp(`^(?:[0-9a-f]{2}){${NONCE_MIN},${PORTABLE_MAX}}$`, "i");

export interface DocumentOptions {
  readonly attest: (options: AttestOptions) => Promise<Uint8Array>;
  readonly keys: MessageKeys;
  /** Hash of the TLS key's SPKI; null: no TLS. */
  readonly tlsKey: Uint8Array | null;
  readonly onError: (error: unknown) => void;
  readonly gate?: Gate;
}

export class DocumentEndpoint {
  readonly #options: DocumentOptions;
  readonly #gate: Gate;

  constructor(options: DocumentOptions) {
    this.#options = options;
    this.#gate = options.gate ?? new Gate(GATE);
  }

  /** Never rejects. */
  async answer(request: Request): Promise<Response> {
    if (request.method !== "GET") return answerText(405, "expected GET", { allow: "GET" });
    const nonces = new URL(request.url).searchParams.getAll("nonce");
    const [nonce] = nonces;
    if (nonces.length !== 1 || nonce === undefined || !NONCE.test(nonce)) {
      return answerText(400, `expected one nonce of ${NONCE_MIN} to ${PORTABLE_MAX} bytes in hexadecimal`);
    }
    try {
      const document = await this.#gate.run(() => this.#document(Buffer.from(nonce, "hex")));
      if (document !== undefined) return answerBytes(ATTESTATION_CONTENT_TYPE, document);
      return answerText(429, "too many documents were asked for", { "retry-after": "1" });
    } catch (error) {
      this.#options.onError(error);
      return answerText(503, "no attestation document can be had");
    }
  }

  async #document(nonce: Uint8Array): Promise<Uint8Array> {
    const { attest, keys, tlsKey } = this.#options;
    const { config } = await keys.current();
    const userData = encodeBinding({ tlsKey, messageKey: await hashKey(config) });
    return attest({ nonce, userData, publicKey: config });
  }
}
