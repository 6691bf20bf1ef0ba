/** What the enclave asks its parent's proxy: format/outbound.ts over vsock. */
import { CID_PARENT, PORT_EGRESS } from "../format/abi.ts";
import {
  decodeLookupAnswer,
  decodeResolveAnswer,
  decodeStatus,
  encodeOutboundRequest,
  LOOKUP_ANSWER_SIZE,
  type LookupAnswer,
  type OutboundRequest,
  RESOLVE_LENGTH_SIZE,
  type ResolveAnswer,
  resolveAnswerLength,
  STATUS_SIZE,
} from "../format/outbound.ts";
import { closeDescriptor } from "../linux/descriptor.ts";
import { receiveAnswer, sendQuestion } from "../linux/exchange.ts";
import { openVsock } from "../linux/vsock.ts";
import type { Questions } from "./egress.ts";

/** The parent answers a lookup within 10 s, whatever its resolver does. */
const LOOKUP_TIMEOUT_MS = 20_000;
/** A burst of connects may find the listener's backlog full for a moment. */
const REFUSALS_MAX = 3;

type Connect = Extract<OutboundRequest, { type: "connect" }>;

/** A status below 0 is an error as libuv numbers it; at 0 the descriptor is the connection, and the caller's. */
export interface Connected {
  readonly status: number;
  readonly fd: number;
}

/** Where the parent's proxy is reached; tests have one of their own. */
export class Outbound implements Questions {
  readonly #open: (signal: AbortSignal) => Promise<number>;

  constructor(open = openProxy) {
    this.#open = open;
  }

  /** No deadline but `signal`: the parent's kernel has one for its connect, and apps have their own. */
  async connect(request: Connect, signal: AbortSignal): Promise<Connected> {
    const fd = await this.#open(signal);
    try {
      sendQuestion(fd, encodeOutboundRequest(request));
      const status = decodeStatus(await receiveAnswer(fd, STATUS_SIZE, signal));
      if (status < 0) closeDescriptor(fd);
      return { status, fd };
    } catch (error) {
      closeDescriptor(fd);
      throw error;
    }
  }

  async lookup(host: string): Promise<LookupAnswer> {
    return await this.#ask({ type: "lookup", host }, async (receive) =>
      decodeLookupAnswer(await receive(LOOKUP_ANSWER_SIZE)),
    );
  }

  async resolve(request: Extract<OutboundRequest, { type: "resolve" }>): Promise<ResolveAnswer> {
    return await this.#ask(request, async (receive) => {
      const length = resolveAnswerLength(await receive(RESOLVE_LENGTH_SIZE));
      return decodeResolveAnswer(await receive(length));
    });
  }

  async #ask<T>(
    request: OutboundRequest,
    read: (receive: (length: number) => Promise<Uint8Array>) => Promise<T>,
  ): Promise<T> {
    const signal = AbortSignal.timeout(LOOKUP_TIMEOUT_MS);
    const fd = await this.#open(signal);
    try {
      sendQuestion(fd, encodeOutboundRequest(request));
      return await read((length) => receiveAnswer(fd, length, signal));
    } finally {
      closeDescriptor(fd);
    }
  }
}

async function openProxy(signal: AbortSignal): Promise<number> {
  for (let refusals = 1; ; refusals++) {
    try {
      return await openVsock({ cid: CID_PARENT, port: PORT_EGRESS, signal });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ECONNRESET" || refusals === REFUSALS_MAX) throw error;
    }
  }
}
