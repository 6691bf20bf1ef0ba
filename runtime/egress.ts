/**
 * The outbound network of one thread: which destinations the measured list allows, and what is said of the others. All
 * ways out (tcp.ts, resolver.ts, udp.ts) ask here.
 */
import { canonicalHost, EgressList, egressRuleFor } from "../format/egress.ts";
import { CloisterError } from "../format/errors.ts";
import type { LookupAnswer, OutboundRequest, ResolveAnswer } from "../format/outbound.ts";
import { Names } from "./names.ts";
import { Tally } from "./tally.ts";

export interface EgressOptions {
  /** Rules of the measured configuration. */
  readonly rules: readonly string[];
  /** A line for the log. */
  readonly say: (line: string) => void;
  readonly outbound: Questions;
  /** Default: this thread's. */
  readonly tally?: Tally;
}

/** What is asked of the parent's proxy about names. Rejects where it does not answer. */
export interface Questions {
  lookup(host: string): Promise<LookupAnswer>;
  resolve(request: Extract<OutboundRequest, { type: "resolve" }>): Promise<ResolveAnswer>;
}

/** What the parent is told to connect to. */
export interface Destination {
  /** Canonical: a name or an address. */
  readonly host: string;
  readonly port: number;
  readonly family: 0 | 4 | 6;
}

export class Egress {
  readonly outbound: Questions;
  readonly names = new Names();
  readonly #list: EgressList;
  readonly #say: (line: string) => void;
  readonly #tally: Tally;

  constructor({ rules, say, outbound, tally = Tally.ofThread() }: EgressOptions) {
    this.#tally = tally;
    this.#list = new EgressList(rules);
    this.#say = say;
    this.outbound = outbound;
  }

  /** May this canonical name be asked for? */
  knows(name: string): boolean {
    return this.#list.allowsHost(name);
  }

  /** May a socket begin to connect to what an app names so: a name, an address, an address that stands for a name? */
  allows(host: string, port: number): boolean {
    const canonical = canonicalHost(host) ?? "";
    return this.#list.allows(this.names.find(canonical)?.name ?? canonical, port);
  }

  /**
   * Where a connect to a canonical address goes; undefined: not allowed. `lookedUp` is the name that the socket was told
   * to connect to, for addresses from a lookup that is not ours.
   */
  destination(address: string, port: number, lookedUp?: string | null): Destination | undefined {
    const named = this.names.find(address);
    if (named !== undefined) {
      return this.#list.allows(named.name, port)
        ? { host: named.name, port, family: named.family }
        : undefined;
    }
    if (this.#list.allows(address, port)) return { host: address, port, family: 0 };
    const host = canonicalHost(lookedUp ?? "");
    return host !== undefined && this.#list.allows(host, port) ? { host, port, family: 0 } : undefined;
  }

  /** A socket begins to connect to what `destination` said. */
  countConnect(): void {
    this.#tally.countAllowed();
  }

  /** The error of a connect that the list does not allow; logged. */
  denyConnect(host: string, port: number): CloisterError {
    const shown = canonicalHost(host) ?? host;
    const name = this.names.find(shown)?.name ?? shown;
    return this.#deny(`connect ${egressRuleFor(name, port)}`, egressRuleFor(name, port));
  }

  /** The error of a question for a name that the list does not have; logged. */
  denyName(name: string): CloisterError {
    return this.#deny(`resolve ${name}`, `${name}:PORT`);
  }

  #deny(what: string, rule: string): CloisterError {
    const line = `egress: ["${rule}"]`;
    this.#tally.countDenied();
    return this.#report(
      new CloisterError(
        "E_EGRESS_DENIED",
        `${what}: got a host or port that egress does not list, expected ${line}`,
        {
          fix: `Add it to cloister.config.ts and build again: ${line}`,
        },
      ),
    );
  }

  /** The error of a datagram; logged. */
  denyDatagram(address: string, port: number): CloisterError {
    const message = `UDP to ${egressRuleFor(address, port)}: got a datagram, expected TCP`;
    this.#tally.countDenied();
    return this.#report(new CloisterError("E_EGRESS_UDP", message));
  }

  /** The error of a parent that does not answer, or not as its proxy does; logged. */
  fail(what: string, cause: unknown): CloisterError {
    const { code, message } = cause as NodeJS.ErrnoException;
    const got = typeof code === "string" && !code.startsWith("E_") ? code : message;
    const text = `${what}: got ${got} from the parent's vsock port, expected its proxy`;
    return this.#report(new CloisterError("E_EGRESS_PROXY", text, { cause }));
  }

  /** The parent's proxy refused what this list allows. */
  sayRefused({ host, port }: Destination): void {
    this.#say(
      `egress: ${egressRuleFor(host, port)}: the parent's proxy refused it: not in its list, or an address it does not reach`,
    );
  }

  #report(error: CloisterError): CloisterError {
    this.#say(`${error.code}: ${error.message}`);
    return error;
  }
}
