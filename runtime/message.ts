/** POST MESSAGE_PATH: a request encrypted to the enclave, answered by the app, the response encrypted to its sender. */
import { type BinaryRequest, decodeBinaryRequest, encodeBinaryResponse } from "../format/bhttp.ts";
import { CloisterError } from "../format/failure.ts";
import {
  KEY_PROBLEM,
  MESSAGE_MAX,
  MESSAGE_REQUEST_TYPE,
  MESSAGE_RESPONSE_TYPE,
  messageKeyId,
  openRequest,
} from "../format/ohttp.ts";
import { readAtMost } from "../format/stream.ts";
import { answerBytes, answerProblem, answerText } from "./answer.ts";
import type { MessageKeys } from "./keys.ts";
import { HOST } from "./request.ts";

/** Of all messages under way together, requests and responses, bytes. Each is there up to five times on its way through. */
const IN_FLIGHT_MAX = 16 * 1024 * 1024;
/** Bytes that a response has around its content: nonce, tag, lengths. The fields are counted apart. */
const RESPONSE_OVERHEAD = 64;

export interface MessageOptions {
  readonly fetch: (request: Request) => Response | Promise<Response>;
  readonly keys: MessageKeys;
  readonly onError: (error: unknown) => void;
  readonly inFlightMax?: number;
}

export class MessageEndpoint {
  readonly #options: MessageOptions;
  readonly #budget: Budget;

  constructor(options: MessageOptions) {
    this.#options = options;
    this.#budget = { left: options.inFlightMax ?? IN_FLIGHT_MAX };
  }

  /** Never rejects. What is not encrypted in an answer tells only what the parent knows anyway. */
  async answer(request: Request): Promise<Response> {
    const refused = refuse(request);
    if (refused !== undefined) return refused;
    const share = new Share(this.#budget);
    try {
      const message = await readAtMost(request.body, MESSAGE_MAX, share.admit);
      if (message === undefined) {
        return share.isExhausted
          ? answerText(503, "too many messages are under way", { "retry-after": "1" })
          : answerText(413, `expected at most ${MESSAGE_MAX} bytes`);
      }
      return await this.#exchange(message, request.signal, share);
    } catch (error) {
      // The client left half-way, or sent what does not decrypt: no fault of the app.
      if (!(error instanceof CloisterError) && !request.signal.aborted) this.#options.onError(error);
      return answerText(400, "this is not an encrypted request");
    } finally {
      share.release();
    }
  }

  async #exchange(message: Uint8Array, signal: AbortSignal, share: Share): Promise<Response> {
    const { keys } = this.#options;
    const key = keys.find(messageKeyId(message));
    if (key === undefined) return answerProblem(400, KEY_PROBLEM, "this key is not known, or not any more");
    const opened = await openRequest(key, message);
    if (!keys.isFirst(key, opened.encapsulated)) return answerText(409, "this request was here before");
    const response = await this.#respond(opened.plaintext, signal, share);
    return answerBytes(MESSAGE_RESPONSE_TYPE, await opened.seal(response));
  }

  /** From here on every outcome is encrypted. */
  async #respond(plaintext: Uint8Array, signal: AbortSignal, share: Share): Promise<Uint8Array> {
    let request: Request;
    try {
      request = toFetchRequest(decodeBinaryRequest(plaintext), signal);
    } catch {
      return plain(400, "Bad Request");
    }
    try {
      const response = await this.#options.fetch(request);
      if (!(response instanceof Response)) {
        throw new TypeError(`fetch handler: got ${typeof response}, expected a Response`);
      }
      return await encodeResponse(response, share);
    } catch (error) {
      if (!signal.aborted) this.#options.onError(error);
      return plain(500, "Internal Server Error");
    }
  }
}

/** Bytes that messages may still take. */
interface Budget {
  left: number;
}

/** What one exchange holds of the budget, as its bytes come: who sends slowly takes nothing in advance. */
class Share {
  readonly #budget: Budget;
  #taken = 0;
  isExhausted = false;

  constructor(budget: Budget) {
    this.#budget = budget;
  }

  readonly admit = (bytes: number): boolean => {
    this.isExhausted = bytes > this.#budget.left;
    if (this.isExhausted) return false;
    this.#budget.left -= bytes;
    this.#taken += bytes;
    return true;
  };

  release(): void {
    this.#budget.left += this.#taken;
    this.#taken = 0;
  }
}

/** What is wrong with the outside of a message. */
function refuse(request: Request): Response | undefined {
  if (request.method !== "POST") return answerText(405, "expected POST", { allow: "POST" });
  const type = request.headers.get("content-type")?.split(";")[0]?.trim().toLowerCase();
  if (type !== MESSAGE_REQUEST_TYPE) return answerText(415, `expected ${MESSAGE_REQUEST_TYPE}`);
  return undefined;
}

/** Throws TypeError or E_MESSAGE for what is no request. It came encrypted, so its URL says https. */
function toFetchRequest(
  { method, authority, path, fields, content }: BinaryRequest,
  signal: AbortSignal,
): Request {
  if (!HOST.test(authority) || !path.startsWith("/")) throw new TypeError("no authority, or no path");
  const init = { method, headers: fields.map(([name, value]): [string, string] => [name, value]), signal };
  const body = method === "GET" || method === "HEAD" ? {} : { body: new Uint8Array(content) };
  return new Request(`https://${authority}${path}`, { ...init, ...body });
}

async function encodeResponse(response: Response, share: Share): Promise<Uint8Array> {
  const fields = [...response.headers];
  const fieldsSize = fields.reduce((sum, [name, value]) => sum + name.length + value.length + 16, 0);
  const most = MESSAGE_MAX - RESPONSE_OVERHEAD - fieldsSize;
  const content = await readAtMost(response.body, most, share.admit);
  if (content !== undefined) return encodeBinaryResponse({ status: response.status, fields, content });
  if (share.isExhausted) return plain(503, "Service Unavailable");
  const expected = `at most ${MESSAGE_MAX} bytes with its fields`;
  throw new CloisterError("E_MESSAGE_SIZE", `response: got a larger one, expected ${expected}`);
}

function plain(status: number, text: string): Uint8Array {
  const content = new TextEncoder().encode(text);
  return encodeBinaryResponse({ status, fields: [["content-type", "text/plain"]], content });
}
