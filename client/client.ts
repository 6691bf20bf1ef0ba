/**
 * Requests that only the attested enclave can read: encrypted to the key that its document has, for browsers, which
 * cannot see whose certificate a connection has, and wherever TLS ends before the enclave.
 */
import { decodeBinaryResponse, encodeBinaryRequest } from "../format/bhttp.ts";
import { CloisterError, mismatch, quote } from "../format/failure.ts";
import {
  KEY_PROBLEM,
  MESSAGE_MAX,
  MESSAGE_PATH,
  MESSAGE_REQUEST_TYPE,
  MESSAGE_RESPONSE_TYPE,
  REQUEST_OVERHEAD,
  sealRequest,
} from "../format/ohttp.ts";
import { readAtMost } from "../format/stream.ts";
import { toHex } from "../format/struct.ts";
import type { Verified } from "../format/verify.ts";
import { type Attested, type AttestOptions, attestEndpoint, withStep } from "./attest.ts";
import { type Fetch, reasonOf } from "./endpoint.ts";

export type ClientOptions = AttestOptions & {
  /**
   * How long a verified key is used before the enclave is attested again, milliseconds; default: 10 minutes. The enclave
   * keeps a key for an hour after it was last handed out.
   */
  readonly attestFor?: number;
  /** For an attestation, milliseconds; default: 10 s. */
  readonly attestDeadline?: number;
  /** For a request and its whole response, milliseconds; default: 60 s. */
  readonly deadline?: number;
  /** Default: the platform's. */
  readonly fetch?: Fetch;
};

export interface Client {
  /**
   * As the platform's `fetch`, with a path or a URL of the enclave's origin. Rejects with what attesting rejects with;
   * E_MESSAGE, E_MESSAGE_SIZE, E_MESSAGE_REFUSED, E_CONNECTION; TypeError for what fetch does not take; the signal's reason.
   */
  fetch(input: string | URL, init?: RequestInit): Promise<Response>;
  /** Attest now, whatever was attested before. */
  attest(signal?: AbortSignal): Promise<Verified>;
}

const ATTEST_FOR_MS = 10 * 60_000;
const DEADLINE_MS = 60_000;
/** RFC 9110 §9.2.2. Carried out twice they do no more than once. */
const IDEMPOTENT: readonly string[] = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"];
/** Fetch standard, "null body status". */
const NO_BODY: readonly number[] = [204, 205, 304];

/** `url`: the enclave's, scheme, host and port. Nothing is sent yet. Throws TypeError. */
export function createClient(url: string | URL, options: ClientOptions): Client {
  const base = originOf(url);
  const session = new Session(base, options);
  return {
    async fetch(input, init) {
      const request = new Request(resolve(base, input), init);
      const encoded = await encodeRequest(base, request);
      const retries = IDEMPOTENT.includes(request.method);
      return session.exchange(encoded, request, retries);
    },
    attest: (signal) => session.attest(signal),
  };
}

/** Throws TypeError for anything but a scheme, a host and a port. */
export function originOf(url: string | URL): URL {
  const parsed = new URL(url);
  const plain =
    parsed.pathname === "/" && parsed.search === "" && parsed.hash === "" && parsed.username === "";
  if (plain && /^https?:$/.test(parsed.protocol)) return parsed;
  throw new TypeError(`url: got ${quote(parsed.href)}, expected one such as https://enclave.example`);
}

/** A path or URL of this origin. Throws TypeError. */
export function resolve(base: URL, input: string | URL): URL {
  const url = new URL(input, base);
  if (url.origin === base.origin) return url;
  throw new TypeError(`url: got ${quote(url.origin)}, expected ${base.origin}, which is what was attested`);
}

async function encodeRequest(base: URL, request: Request): Promise<Uint8Array> {
  const { pathname, search } = new URL(request.url);
  const content = await readAtMost(request.body ?? (await bodyOf(request)), MESSAGE_MAX);
  const encoded =
    content &&
    encodeBinaryRequest({
      method: request.method,
      scheme: "https",
      authority: base.host,
      path: pathname + search,
      fields: [...request.headers],
      content,
    });
  if (encoded !== undefined && encoded.length + REQUEST_OVERHEAD <= MESSAGE_MAX) return encoded;
  throw mismatch("E_MESSAGE_SIZE", "request", "a larger one", `at most ${MESSAGE_MAX} bytes when encrypted`);
}

/** Firefox has no Request.body, only ways to read it. */
async function bodyOf(request: Request): Promise<ReadableStream<Uint8Array> | null> {
  return request.method === "GET" || request.method === "HEAD" ? null : (await request.blob()).stream();
}

/** What was attested last, and until when it counts. */
class Session {
  readonly #base: URL;
  readonly #options: ClientOptions;
  readonly #fetch: Fetch;
  #attested: Promise<Attested> | undefined;
  #until = 0;

  constructor(base: URL, options: ClientOptions) {
    this.#base = base;
    this.#options = options;
    const { fetch } = options;
    // A browser's fetch wants to be called on the window.
    this.#fetch = fetch ?? ((url, init) => globalThis.fetch(url, init));
  }

  attest(signal?: AbortSignal): Promise<Attested> {
    const attested = this.#attest(signal);
    this.#attested = attested;
    this.#until = performance.now() + (this.#options.attestFor ?? ATTEST_FOR_MS);
    attested.catch(() => this.#forget(attested));
    return attested;
  }

  async #attest(signal: AbortSignal | undefined): Promise<Attested> {
    const endpoint = { signal, deadline: this.#options.attestDeadline, fetch: this.#fetch };
    const attested = await attestEndpoint(this.#base, this.#options, endpoint);
    const { messageConfig, steps } = attested;
    if (messageConfig === null)
      throw mismatch("E_ATTESTATION_BINDING", "user data", "no key", "one to encrypt to");
    const checked = "The enclave made the key that requests are encrypted to";
    return { ...attested, steps: withStep(steps, "public key", checked, toHex(messageConfig)) };
  }

  #forget(attested: Promise<Attested>): void {
    if (this.#attested === attested) this.#attested = undefined;
  }

  /** Once more with a fresh key where the answer is none, if that does no harm. */
  async exchange(encoded: Uint8Array, request: Request, retries: boolean): Promise<Response> {
    const isKnown = this.#attested !== undefined && performance.now() < this.#until;
    const used = isKnown && this.#attested !== undefined ? this.#attested : this.attest();
    try {
      return await this.#send(await abortable(used, request.signal), encoded, request);
    } catch (error) {
      const isRefused = error instanceof CloisterError && error.code === "E_MESSAGE_REFUSED";
      if (!isRefused) throw error;
      // Whoever says that the key is gone may have passed the request on first: then sending it again repeats it.
      this.#forget(used);
      if (!isKnown || !retries) throw error;
      return this.exchange(encoded, request, false);
    }
  }

  async #send({ messageConfig }: Attested, encoded: Uint8Array, request: Request): Promise<Response> {
    const { message, open } = await sealRequest(messageConfig as Uint8Array, encoded);
    const deadline = this.#options.deadline ?? DEADLINE_MS;
    const timeout = AbortSignal.timeout(deadline);
    const url = new URL(MESSAGE_PATH, this.#base);
    try {
      const response = await this.#fetch(url, {
        method: "POST",
        headers: { "content-type": MESSAGE_REQUEST_TYPE },
        body: new Uint8Array(message),
        redirect: "error",
        credentials: "omit",
        cache: "no-store",
        signal: AbortSignal.any([request.signal, timeout]),
      });
      return decodeResponse(await open(await readEncrypted(url, response)), request.method);
    } catch (error) {
      if (error instanceof CloisterError) throw error;
      request.signal.throwIfAborted();
      const got = timeout.aborted ? "no whole answer" : reasonOf(error);
      throw mismatch("E_CONNECTION", url.href, got, `one within ${deadline / 1000} s`);
    }
  }
}

/** Others may wait for the same attestation: this one only stops waiting. */
async function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

async function readEncrypted(url: URL, response: Response): Promise<Uint8Array> {
  const { status, body } = response;
  const type = response.headers.get("content-type") ?? "";
  if (status === 200 && type.toLowerCase() === MESSAGE_RESPONSE_TYPE) {
    const bytes = await readAtMost(body, MESSAGE_MAX);
    if (bytes !== undefined) return bytes;
    throw mismatch("E_MESSAGE_SIZE", url.href, `more than ${MESSAGE_MAX} bytes`, "at most as many");
  }
  const text = new TextDecoder().decode((await readAtMost(body, 4096)) ?? new Uint8Array(0));
  const reason = text.includes(KEY_PROBLEM) ? "another key is in use" : quote(text.trim());
  throw mismatch(
    "E_MESSAGE_REFUSED",
    url.href,
    `status ${status}, ${reason}`,
    `200, ${MESSAGE_RESPONSE_TYPE}`,
  );
}

function decodeResponse(plaintext: Uint8Array, method: string): Response {
  const { status, fields, content } = decodeBinaryResponse(plaintext);
  const headers = fields.map(([name, value]): [string, string] => [name, value]);
  const isEmpty = NO_BODY.includes(status) || method === "HEAD";
  try {
    return new Response(isEmpty ? null : new Uint8Array(content), { status, headers });
  } catch (cause) {
    // TypeError: a field that HTTP does not allow.
    throw new CloisterError("E_MESSAGE", `encrypted response: ${(cause as Error).message}`, { cause });
  }
}
