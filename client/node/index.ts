/**
 * `cloister/client/node`: TLS that ends inside an attested enclave. Before a byte of a request is sent, the connection's
 * own key is found in a fresh document that came over this very connection.
 */
import { mismatch } from "../../format/failure.ts";
import { toHex } from "../../format/struct.ts";
import type { Verified } from "../../format/verify.ts";
import { type AttestOptions, attestEndpoint, withStep } from "../attest.ts";
import { originOf, resolve } from "../client.ts";
import { DEADLINE_MS } from "../endpoint.ts";
import { Connection } from "./connection.ts";

export type TlsOptions = AttestOptions & {
  /**
   * How long a key that was attested is trusted without asking again, milliseconds; default: 1 hour. It lives in that
   * enclave's memory and nowhere else, as long as the enclave runs.
   */
  readonly attestFor?: number;
  /** For connecting, and for attesting, milliseconds each; default: 10 s. */
  readonly attestDeadline?: number;
};

export interface TlsClient {
  /**
   * As the platform's `fetch`, with a path or a URL of the enclave's origin; redirects are not followed, and nothing is
   * decompressed. Rejects with E_CONNECTION, with what attesting rejects with, TypeError, or the signal's reason.
   */
  fetch(input: string | URL, init?: RequestInit): Promise<Response>;
  /** Attest over a connection, whatever was attested before. */
  attest(signal?: AbortSignal): Promise<Verified>;
  /** End all connections, also those of responses under way. */
  close(): void;
  [Symbol.dispose](): void;
}

const ATTEST_FOR_MS = 60 * 60_000;
/** Never aborted. */
const NO_SIGNAL = new AbortController().signal;

/** `url`: the enclave's, https. Nothing is sent yet. Throws TypeError. */
export function createTlsClient(url: string | URL, options: TlsOptions): TlsClient {
  const base = httpsOriginOf(url);
  const pool = new Pool(base, options, true);
  const close = () => pool.close();
  return {
    fetch: async (input, init) => pool.request(new Request(resolve(base, input), init)),
    attest: (signal = NO_SIGNAL) => pool.attest(signal),
    close,
    [Symbol.dispose]: close,
  };
}

/**
 * One request over a connection of its own, which ends with the response. For more than one, createTlsClient attests
 * once. Rejects as `TlsClient.fetch`.
 */
export async function attestedFetch(url: string | URL, options: TlsOptions & RequestInit): Promise<Response> {
  const pool = new Pool(httpsOriginOf(new URL(url).origin), options, false);
  return pool.request(new Request(url, options));
}

function httpsOriginOf(url: string | URL): URL {
  const base = originOf(url);
  if (base.protocol === "https:") return base;
  throw new TypeError(`url: got ${base.protocol}, expected https:`);
}

/** Connections to one enclave, and the keys that were attested. */
class Pool {
  readonly #base: URL;
  readonly #options: TlsOptions;
  readonly #keep: boolean;
  readonly #connections = new Set<Connection>();
  readonly #idle: Connection[] = [];
  /** Until when a key is trusted, by the hash of its SPKI in hexadecimal. */
  readonly #pins = new Map<string, number>();

  constructor(base: URL, options: TlsOptions, keep: boolean) {
    this.#base = base;
    this.#options = options;
    this.#keep = keep;
  }

  async request(request: Request): Promise<Response> {
    const connection = await this.#take(request.signal);
    try {
      if (!this.#isPinned(connection)) await this.#attest(connection, request.signal);
      return await connection.request(request, () => this.#release(connection));
    } catch (error) {
      this.#drop(connection);
      request.signal.throwIfAborted();
      throw error;
    }
  }

  async attest(signal: AbortSignal): Promise<Verified> {
    const connection = await this.#take(signal);
    try {
      const verified = await this.#attest(connection, signal);
      this.#release(connection);
      return verified;
    } catch (error) {
      this.#drop(connection);
      signal.throwIfAborted();
      throw error;
    }
  }

  close(): void {
    for (const connection of this.#connections) this.#drop(connection);
  }

  async #take(signal: AbortSignal): Promise<Connection> {
    for (let kept = this.#idle.pop(); kept !== undefined; kept = this.#idle.pop()) {
      if (kept.isOpen) return kept;
      this.#drop(kept);
    }
    const deadline = this.#options.attestDeadline ?? DEADLINE_MS;
    const connection = await Connection.open({ base: this.#base, signal, deadline });
    this.#connections.add(connection);
    return connection;
  }

  #release(connection: Connection): void {
    if (this.#keep && connection.isOpen) this.#idle.push(connection);
    else this.#drop(connection);
  }

  #drop(connection: Connection): void {
    this.#connections.delete(connection);
    connection.close();
  }

  #isPinned({ keyHash }: Connection): boolean {
    return performance.now() < (this.#pins.get(keyHash) ?? 0);
  }

  /** Over this very connection: what another one would say is nothing about this one. */
  async #attest(connection: Connection, signal: AbortSignal): Promise<Verified> {
    const fetch = (url: URL, init: RequestInit) => connection.request(new Request(url, init), () => {});
    const endpoint = { signal, deadline: this.#options.attestDeadline, fetch };
    const { document, steps, binding } = await attestEndpoint(this.#base, this.#options, endpoint);
    const got = connection.keyHash;
    const expected = binding.tlsKey === null ? "none: no TLS in this enclave" : toHex(binding.tlsKey);
    if (got !== expected)
      throw mismatch("E_ATTESTATION_BINDING", "TLS key of the connection: SHA-256", got, expected);
    this.#pins.set(got, performance.now() + (this.#options.attestFor ?? ATTEST_FOR_MS));
    const checked = "The enclave made the key of this TLS connection";
    return { document, steps: withStep(steps, "user data", checked, got) };
  }
}
