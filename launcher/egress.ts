/**
 * The parent's side of outbound connections (format/outbound.ts). It has its own copy of the list, so that an enclave
 * whose app has gone bad reaches no more through its parent than it was built to; what the enclave sends is not trusted.
 */
import { promises as dns, type LookupAddress } from "node:dns";
import { connect as connectTcp, type Socket } from "node:net";
import { constants } from "node:os";
import { canonicalHost, EgressList, egressRuleFor, isAddress } from "../format/egress.ts";
import {
  encodeLookupAnswer,
  encodeResolveAnswer,
  encodeStatus,
  type OutboundRequest,
} from "../format/outbound.ts";
import type { SystemError } from "../linux/failure.ts";
import { isReachable } from "./address.ts";
import type { DescriptorRelay } from "./descriptors.ts";
import type { VsockStream } from "./device.ts";
import { readRequest, StreamEnded } from "./question.ts";
import { relayStreams, reset } from "./relay.ts";
import { LookupError, Resolver } from "./resolver.ts";
import { type Traffic, TrafficCounter } from "./traffic.ts";

const { EACCES, ECONNREFUSED, EAFNOSUPPORT, EMFILE } = constants.errno;
const EAI_NONAME = -3008;

/** A destination on the parent's own machine or link, allowed by name. */
export interface LocalEgress {
  /** As the enclave's list has it. */
  readonly host: string;
  readonly port: number;
  /** Where it is; default: wherever the name leads. */
  readonly to?: { readonly address: string; readonly port: number };
}

export interface EgressOptions {
  /** The parent's copy of the list. */
  readonly rules: readonly string[];
  readonly local?: readonly LocalEgress[];
  /** What was refused, and why: a line. */
  readonly onRefusal?: (reason: string) => void;
  readonly resolver?: Resolver;
  /** Where records other than addresses are asked for. It must have given up before the enclave does, after 20 s. */
  readonly records?: Pick<dns.Resolver, "resolve">;
  /** Takes connections that are descriptors; closed with the proxy. Default: all are streams, as any system has them. */
  readonly descriptors?: DescriptorRelay;
}

type Connect = Extract<OutboundRequest, { type: "connect" }>;

/** Where a connect goes: one name's addresses, each of them checked. */
interface Target {
  readonly addresses: readonly LookupAddress[];
  readonly port: number;
}

export class EgressProxy {
  readonly #list: EgressList;
  readonly #local = new Map<string, LocalEgress>();
  readonly #resolver: Resolver;
  readonly #records: Pick<dns.Resolver, "resolve">;
  readonly #onRefusal: (reason: string) => void;
  readonly #sockets = new Set<Socket>();
  readonly #streams = new Set<VsockStream>();
  readonly #counter = new TrafficCounter();
  readonly #descriptors: DescriptorRelay | undefined;

  /** Throws RangeError for a rule that is none. */
  constructor({
    rules,
    local = [],
    onRefusal = () => {},
    resolver = new Resolver(),
    records = new dns.Resolver({ timeout: 3_000, tries: 2 }),
    descriptors,
  }: EgressOptions) {
    this.#list = new EgressList(rules);
    for (const entry of local) {
      const host = canonicalHost(entry.host) ?? entry.host;
      this.#local.set(egressRuleFor(host, entry.port), { ...entry, host });
    }
    this.#onRefusal = onRefusal;
    this.#resolver = resolver;
    this.#records = records;
    this.#descriptors = descriptors;
    descriptors?.follow(() => this.#streams.size);
  }

  /** Serve one connection of the enclave. Never rejects. */
  async accept(stream: VsockStream): Promise<void> {
    if (this.#descriptors?.admits((reason) => this.#onRefusal(`egress: ${reason}`)) === false) {
      this.#turnAway(stream);
      return;
    }
    this.#streams.add(stream);
    stream.once("close", () => this.#streams.delete(stream));
    // Whoever waits for the stream hears of its end by "close".
    stream.on("error", () => {});
    try {
      const request = await readRequest(stream);
      const host = canonicalHost(request.host);
      if (request.type === "connect") await this.#connect(stream, { ...request, host: host ?? "" });
      else stream.end(await this.#answer(request, host));
    } catch (error) {
      stream.destroy();
      if (!(error instanceof StreamEnded)) this.#onRefusal(`egress: ${(error as Error).message}`);
    }
  }

  /** Whatever it asks for: nothing of it is read, and nothing waits for it. */
  #turnAway(stream: VsockStream): void {
    this.#counter.refuse();
    stream.on("error", () => {});
    stream.end(encodeStatus(-EMFILE), () => stream.destroy());
  }

  /** Connections there are get reset. */
  close(): void {
    this.#descriptors?.close();
    for (const stream of this.#streams) stream.destroy();
    for (const socket of this.#sockets) reset(socket);
  }

  /** Connections that stood; `refused`: connections and names that the rules or this machine, not the remote, refused. */
  traffic(): Traffic {
    const streams = this.#counter.read();
    const { size = 0, bytesIn = 0, bytesOut = 0 } = this.#descriptors ?? {};
    return {
      ...streams,
      open: streams.open + size,
      bytesIn: streams.bytesIn + bytesIn,
      bytesOut: streams.bytesOut + bytesOut,
    };
  }

  async #answer(request: Exclude<OutboundRequest, Connect>, host: string | undefined): Promise<Uint8Array> {
    const isKnown = host !== undefined && !isAddress(host) && this.#list.allowsHost(host);
    if (!isKnown) this.#refuse(request.host, "the list does not have it");
    if (request.type === "resolve") {
      return encodeResolveAnswer(
        isKnown ? await resolveRecords(this.#records, host, request.record) : { error: "EREFUSED" },
      );
    }
    return encodeLookupAnswer(
      isKnown ? await this.#lookup(host) : { status: EAI_NONAME, ipv4: false, ipv6: false },
    );
  }

  async #lookup(host: string): Promise<{ status: number; ipv4: boolean; ipv6: boolean }> {
    // A name that leads elsewhere by order need not exist.
    const mapped = [...this.#local.values()].filter((entry) => entry.host === host && entry.to !== undefined);
    try {
      const found = mapped.length > 0 ? mapped.map(({ to }) => to?.address ?? "") : await this.#names(host);
      const ipv6 = found.some((address) => address.includes(":"));
      return { status: 0, ipv4: found.some((address) => !address.includes(":")), ipv6 };
    } catch (error) {
      if (!(error instanceof LookupError)) throw error;
      return { status: error.errno, ipv4: false, ipv6: false };
    }
  }

  async #names(host: string): Promise<string[]> {
    return (await this.#resolver.addresses(host)).map(({ address }) => address);
  }

  async #connect(stream: VsockStream, request: Connect): Promise<void> {
    const target = await this.#target(request);
    if (typeof target === "number") {
      stream.end(encodeStatus(target));
      return;
    }
    // The enclave gave up meanwhile.
    if (stream.destroyed) return;
    const socket = connectTo(target);
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    // An attempt that nobody waits for any more: an enclave that waits for the answer ends nothing.
    const abandon = () => socket.destroy();
    stream.once("close", abandon).once("end", abandon);
    const status = await connected(socket);
    stream.off("close", abandon).off("end", abandon);
    if (status < 0) {
      stream.end(encodeStatus(status));
      return;
    }
    this.#counter.follow(socket);
    this.#relay(socket, stream);
  }

  #relay(socket: Socket, stream: VsockStream): void {
    try {
      if (this.#descriptors?.join(socket, stream, encodeStatus(0)) === true) return;
    } catch (error) {
      // EMFILE, ENOSPC: this machine is full.
      stream.end(encodeStatus(-(error as SystemError).errno));
      reset(socket);
      return;
    }
    stream.write(encodeStatus(0));
    relayStreams(socket, stream);
  }

  /** Addresses and port, or the status of a refusal. */
  async #target({ host, port, family }: Connect): Promise<Target | number> {
    const rule = egressRuleFor(host, port);
    if (!this.#list.allows(host, port)) return this.#refuse(rule, "the list does not have it");
    const local = this.#local.get(rule);
    if (local?.to !== undefined) {
      const { address } = local.to;
      return { addresses: [{ address, family: address.includes(":") ? 6 : 4 }], port: local.to.port };
    }
    try {
      const all = isAddress(host) ? [addressOf(host)] : await this.#resolver.addresses(host);
      const wanted = all.filter((address) => family === 0 || isAddress(host) || address.family === family);
      const addresses = wanted.filter(({ address }) => local !== undefined || isReachable(address));
      if (addresses.length > 0) return { addresses, port };
      if (wanted.length === 0) return -EAFNOSUPPORT;
      return this.#refuse(
        rule,
        `leads to ${wanted[0]?.address}, which is this machine's, its link's or the cloud's own`,
      );
    } catch (error) {
      if (error instanceof LookupError) return error.errno;
      throw error;
    }
  }

  #refuse(what: string, why: string): number {
    this.#counter.refuse();
    this.#onRefusal(`egress: ${what}: refused: ${why}`);
    return -EACCES;
  }
}

function addressOf(host: string): LookupAddress {
  return { address: host, family: host.includes(":") ? 6 : 4 };
}

async function resolveRecords(records: Pick<dns.Resolver, "resolve">, host: string, record: string) {
  try {
    return { records: await records.resolve(host, record) };
  } catch (error) {
    const { code = "" } = error as NodeJS.ErrnoException;
    return { error: /^[A-Z]{1,32}$/.test(code) ? code : "ESERVFAIL" };
  }
}

/** Nothing is resolved here any more: the checked addresses are what is connected to, one after the other. */
function connectTo({ addresses, port }: Target): Socket {
  const lookup = (_: string, options: { all?: boolean }, callback: (...args: never[]) => void) => {
    const answer = callback as unknown as (error: null, ...found: unknown[]) => void;
    const [first] = addresses;
    if (options.all === true) process.nextTick(answer, null, addresses);
    else process.nextTick(answer, null, first?.address, first?.family);
  };
  const options = {
    host: "checked",
    port,
    lookup,
    allowHalfOpen: true,
    noDelay: true,
    autoSelectFamily: true,
  };
  return connectTcp(options as never).pause();
}

/** 0, or the error as libuv numbers it: of several attempts the last one's. */
function connected(socket: Socket): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<number>();
  socket.once("connect", () => resolve(0));
  socket.on("error", (error: NodeJS.ErrnoException) => {
    const last = error instanceof AggregateError ? (error.errors.at(-1) as NodeJS.ErrnoException) : error;
    resolve(last.errno ?? -ECONNREFUSED);
  });
  socket.once("close", () => resolve(-ECONNREFUSED));
  return promise;
}
