/**
 * The allow-list of outbound connections: `HOST:PORT` rules of the measured configuration, and the one matcher that the
 * enclave and its parent's proxy both ask.
 */

/** A rule as it was written, and what it says. */
export interface EgressRule {
  readonly text: string;
  /** Canonical; `.amazonaws.com` for `*.amazonaws.com`. */
  readonly host: string;
  /** 0: every port. */
  readonly port: number;
}

export const EGRESS_EXPECTED =
  'HOST:PORT such as "api.example.com:443", "*.example.com:443", "10.0.0.5:5432", "[2001:db8::1]:*"';

/** RFC 1035 §2.3.4. */
const NAME_MAX = 253;
/** RFC 1123 §2.1, and the underscore of service names (RFC 2782). */
const LABEL = /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/;
/** A last label that makes a URL's host an IPv4 address (WHATWG URL, "ends in a number checker"). */
const NUMBER = /^(\d+|0x[0-9a-f]*)$/;

/**
 * The one spelling of a host: names in lower case without the final dot, IPv4 as four decimal numbers, IPv6 as RFC 5952
 * has it without brackets, an IPv4-mapped IPv6 address as the IPv4 address. undefined: no host.
 */
export function canonicalHost(host: string): string | undefined {
  if (host.includes(":")) return canonicalIpv6(host);
  if (/^[\d.]+$/.test(host)) return canonicalIpv4(host);
  const name = host.toLowerCase().replace(/\.$/, "");
  const labels = name.split(".");
  const isName = name.length <= NAME_MAX && labels.every((label) => LABEL.test(label));
  return isName && !NUMBER.test(labels.at(-1) ?? "") ? name : undefined;
}

function canonicalIpv4(host: string): string | undefined {
  const parts = host.split(".");
  const isAddress =
    parts.length === 4 && parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) < 256);
  return isAddress ? host : undefined;
}

function canonicalIpv6(host: string): string | undefined {
  // What may stand between a URL's brackets; a zone (`%eth0`) may not.
  const url = /^[0-9a-f:.]{2,45}$/i.test(host) ? URL.parse(`http://[${host}]`) : null;
  if (url === null) return undefined;
  const canonical = url.hostname.slice(1, -1);
  const [, high = "", low = ""] = /^::ffff:([0-9a-f]+):([0-9a-f]+)$/.exec(canonical) ?? [];
  return low === "" ? canonical : ipv4Of(Number.parseInt(high, 16), Number.parseInt(low, 16));
}

function ipv4Of(high: number, low: number): string {
  return [high >> 8, high & 255, low >> 8, low & 255].join(".");
}

/** Is a canonical host an address, not a name? */
export function isAddress(host: string): boolean {
  return host.includes(":") || /^[\d.]+$/.test(host);
}

/** The machine itself: a canonical loopback or unspecified address, or its name. */
export function isLoopback(host: string): boolean {
  return (
    /^(127\.|0\.0\.0\.0$)/.test(host) || host === "::1" || host === "::" || /^(.+\.)?localhost$/.test(host)
  );
}

/** undefined: no rule. `*.` stands for one label or more, so `*.a.com` is `x.a.com` and `x.y.a.com`, and not `a.com`. */
export function parseEgressRule(text: string): EgressRule | undefined {
  const [, bracketed, plain = "", digits = ""] =
    /^(?:\[([^\]]*)\]|([^:[\]]+)):(\*|\d{1,5})$/.exec(text) ?? [];
  const port = digits === "*" ? 0 : Number(digits);
  if (digits === "" || (digits !== "*" && (port < 1 || port > 65_535))) return undefined;
  const isWild = plain.startsWith("*.");
  const host =
    bracketed === undefined ? canonicalHost(isWild ? plain.slice(2) : plain) : canonicalIpv6(bracketed);
  // Loopback is the enclave itself.
  if (host === undefined || isLoopback(host) || (isWild && isAddress(host))) return undefined;
  return { text, host: isWild ? `.${host}` : host, port };
}

/** The rule that would allow this, as the configuration has it. */
export function egressRuleFor(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

export class EgressList {
  readonly #rules: readonly EgressRule[];

  /** Throws RangeError for a text that is no rule: the configuration was checked when it was read. */
  constructor(rules: readonly string[]) {
    this.#rules = rules.map((text) => {
      const rule = parseEgressRule(text);
      if (rule === undefined)
        throw new RangeError(`egress: got ${JSON.stringify(text)}, expected ${EGRESS_EXPECTED}`);
      return rule;
    });
  }

  get isEmpty(): boolean {
    return this.#rules.length === 0;
  }

  /** May a connection to this canonical host and port leave? */
  allows(host: string, port: number): boolean {
    return this.#rules.some((rule) => (rule.port === 0 || rule.port === port) && covers(rule, host));
  }

  /** Is there any port of this canonical host to which one may? Then its name may be asked for. */
  allowsHost(host: string): boolean {
    return this.#rules.some((rule) => covers(rule, host));
  }
}

function covers({ host: wanted }: EgressRule, host: string): boolean {
  if (!wanted.startsWith(".")) return wanted === host;
  return host.length > wanted.length && host.endsWith(wanted) && !isAddress(host);
}
