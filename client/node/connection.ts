/** One TLS connection to an enclave, and HTTP/1.1 on it and on no other. */
import { once } from "node:events";
import { Agent, type ClientRequest, request as httpRequest, type IncomingMessage } from "node:http";
import { isIP } from "node:net";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { connect, type TLSSocket } from "node:tls";
import { hashKey } from "../../format/binding.ts";
import { decodeCertificate } from "../../format/certificate.ts";
import { CloisterError, mismatch } from "../../format/failure.ts";
import { toHex } from "../../format/struct.ts";
import { reasonOf } from "../endpoint.ts";

export interface ConnectOptions {
  readonly base: URL;
  readonly signal: AbortSignal;
  /** Milliseconds. */
  readonly deadline: number;
}

/** Fetch standard, "null body status". */
const NO_BODY: readonly number[] = [204, 205, 304];

export class Connection {
  /** SHA-256 of the SubjectPublicKeyInfo, DER, of the peer's key, in hexadecimal: it proved to have the private one. */
  readonly keyHash: string;
  readonly #base: URL;
  readonly #socket: TLSSocket;
  readonly #agent: Agent;

  private constructor(base: URL, socket: TLSSocket, keyHash: string) {
    this.#base = base;
    this.#socket = socket;
    this.keyHash = keyHash;
    // Keeps this socket between requests, without keeping the program running, and never makes another: a lost
    // connection is an error, not a new one.
    this.#agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const sockets = [socket];
    this.#agent.createConnection = () => {
      const next = sockets.pop();
      if (next !== undefined) return next;
      throw ended(base, "the end of the connection");
    };
  }

  /**
   * Connect. Whose certificate it is, is not judged here, and the caller must judge `keyHash` before anything is sent.
   * Rejects with E_CONNECTION, E_DER, or the signal's reason.
   */
  static async open({ base, signal, deadline }: ConnectOptions): Promise<Connection> {
    const timeout = AbortSignal.timeout(deadline);
    const host = base.hostname.replace(/^\[(.*)\]$/, "$1");
    const socket = connect({
      ...{ host, port: Number(base.port || 443), ALPNProtocols: ["http/1.1"] },
      ...(isIP(host) === 0 ? { servername: host } : {}),
      // No renegotiation: the key of the handshake is the key of the connection.
      minVersion: "TLSv1.3",
      rejectUnauthorized: false,
    });
    // Errors later on are those of the request under way, or of no one.
    socket.on("error", () => {});
    try {
      await once(socket, "secureConnect", { signal: AbortSignal.any([signal, timeout]) });
      const { publicKey } = decodeCertificate(new Uint8Array(socket.getPeerCertificate().raw));
      return new Connection(base, socket, toHex(await hashKey(publicKey.spki)));
    } catch (error) {
      socket.destroy();
      signal.throwIfAborted();
      if (error instanceof CloisterError) throw error;
      throw ended(base, timeout.aborted ? `nothing for ${deadline / 1000} s` : reasonOf(error));
    }
  }

  get isOpen(): boolean {
    return !this.#socket.destroyed && this.#socket.writable && this.#socket.readable;
  }

  close(): void {
    this.#agent.destroy();
    this.#socket.destroy();
  }

  /**
   * One request at a time. `onIdle` is called when the response was read to its end and the connection can have the next
   * one. Redirects are returned as they are. Rejects with E_CONNECTION, or the signal's reason.
   */
  async request(request: Request, onIdle: () => void): Promise<Response> {
    const { method, headers, signal } = request;
    const outgoing = httpRequest({
      ...{ host: this.#base.hostname, port: this.#base.port || 443, method, signal, agent: this.#agent },
      path: pathOf(request.url),
      headers: [...Object.entries({ host: this.#base.host, ...fieldsOf(headers) })].flat(),
    });
    // The agent has this one socket: it is free again when it says so.
    this.#agent.once("free", onIdle);
    try {
      const responded = once(outgoing, "response") as Promise<[IncomingMessage]>;
      const sent = sendBody(request, outgoing);
      // A server may answer before it has read all, or refuse to: then what becomes of the rest is of no interest.
      sent.catch(() => {});
      const [incoming] = await Promise.race([responded, sent.then(() => responded)]);
      return toResponse(incoming, method);
    } catch (error) {
      this.close();
      signal.throwIfAborted();
      if (error instanceof CloisterError) throw error;
      throw ended(this.#base, reasonOf(error));
    }
  }
}

function pathOf(url: string): string {
  const { pathname, search } = new URL(url);
  return pathname + search;
}

/** What the body is sent with is HTTP's own affair; nothing here can decompress. */
function fieldsOf(headers: Headers): Record<string, string> {
  return { "accept-encoding": "identity", ...Object.fromEntries(headers) };
}

async function sendBody({ body }: Request, outgoing: ClientRequest): Promise<void> {
  if (body === null) outgoing.end();
  else await pipeline(Readable.fromWeb(body as Parameters<typeof Readable.fromWeb>[0]), outgoing);
}

function toResponse(incoming: IncomingMessage, method: string): Response {
  const { statusCode: status = 0, statusMessage: statusText = "", rawHeaders } = incoming;
  const pairs: [string, string][] = [];
  for (let i = 0; i < rawHeaders.length; i += 2) pairs.push([rawHeaders[i] ?? "", rawHeaders[i + 1] ?? ""]);
  const isEmpty = NO_BODY.includes(status) || method === "HEAD";
  if (isEmpty) incoming.resume();
  const body = isEmpty ? null : (Readable.toWeb(incoming) as ReadableStream<Uint8Array<ArrayBuffer>>);
  return new Response(body, { status, statusText, headers: pairs });
}

function ended(base: URL, got: string): CloisterError {
  return mismatch("E_CONNECTION", base.origin, got, "a TLS connection that lasts");
}
