/** A fetch app behind what the runtime serves for it: attestation documents and encrypted requests. */
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { ATTESTATION_PATH } from "../format/attestation.ts";
import { MESSAGE_PATH } from "../format/ohttp.ts";
import { answerPreflight, answerText } from "./answer.ts";
import { DocumentEndpoint, type DocumentOptions } from "./document.ts";
import { MessageKeys } from "./keys.ts";
import { MessageEndpoint } from "./message.ts";
import type { FetchApp } from "./serve.ts";

export type AttestedOptions = Pick<DocumentOptions, "attest" | "tlsKey" | "onError">;

/** The same app, which requests for these paths do not reach, encrypted or not. */
export function attestedApp(app: FetchApp, options: AttestedOptions): FetchApp {
  const keys = new MessageKeys();
  const documents = new DocumentEndpoint({ ...options, keys });
  const inner = (request: Request) =>
    isOwn(new URL(request.url).pathname)
      ? answerText(404, "not within an encrypted request")
      : app.fetch(request);
  const messages = new MessageEndpoint({ fetch: inner, keys, onError: options.onError });

  const fetch = (request: Request) => {
    const { pathname } = new URL(request.url);
    if (!isOwn(pathname)) return app.fetch(request);
    const isDocument = pathname === ATTESTATION_PATH;
    if (request.method === "OPTIONS") return answerPreflight(isDocument ? "GET" : "POST");
    return isDocument ? documents.answer(request) : messages.answer(request);
  };
  if (app.upgrade === undefined) return { fetch };
  const upgrade = app.upgrade.bind(app);
  return {
    fetch,
    upgrade(request: IncomingMessage, socket: Duplex, head: Buffer) {
      const target = URL.parse(request.url ?? "", "http://localhost");
      if (target !== null && !isOwn(target.pathname)) return upgrade(request, socket, head);
      socket.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    },
  };
}

function isOwn(pathname: string): boolean {
  return pathname === ATTESTATION_PATH || pathname === MESSAGE_PATH;
}
