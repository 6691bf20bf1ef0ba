/**
 * Addresses that stand for names. A name's real addresses never come here: an app that resolves a name gets one that
 * stands for it, and when it connects there, the name is what the allow-list and the parent see.
 */
import { canonicalHost } from "../format/egress.ts";

export interface Named {
  readonly name: string;
  readonly family: 4 | 6;
}

/** 198.18.0.0/15 (RFC 2544) and 2001:2::/48 (RFC 5180): for benchmarks, and so of no host anywhere. */
const IPV4_BASE = 198 * 2 ** 24 + 18 * 2 ** 16;
const IPV6_PREFIX = "2001:2::";
/** As many as the IPv4 range has; beyond, the oldest name gives up its address. */
const CAPACITY = 2 ** 17 - 1;

export class Names {
  readonly #capacity: number;
  readonly #indexes = new Map<string, number>();
  readonly #names: string[] = [];
  #next = 0;

  constructor(capacity = CAPACITY) {
    this.#capacity = capacity;
  }

  /** The address of a canonical name, canonical too. */
  addressOf(name: string, family: 4 | 6): string {
    // 198.18.0.0 is left out.
    const number = this.#indexOf(name) + 1;
    if (family === 4) {
      const address = IPV4_BASE + number;
      return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join(".");
    }
    const groups = number < 0x1_0000 ? [number] : [number >>> 16, number & 0xffff];
    return canonicalHost(IPV6_PREFIX + groups.map((group) => group.toString(16)).join(":")) ?? "";
  }

  /** What a canonical address stands for. */
  find(address: string): Named | undefined {
    const family = address.includes(":") ? 6 : 4;
    const number = family === 4 ? ipv4Number(address) : ipv6Number(address);
    const name = this.#names[number - 1];
    return name === undefined ? undefined : { name, family };
  }

  #indexOf(name: string): number {
    const known = this.#indexes.get(name);
    if (known !== undefined) return known;
    const index = this.#next;
    this.#next = (index + 1) % this.#capacity;
    const oldest = this.#names[index];
    if (oldest !== undefined) this.#indexes.delete(oldest);
    this.#names[index] = name;
    this.#indexes.set(name, index);
    return index;
  }
}

function ipv4Number(address: string): number {
  return address.split(".").reduce((sum, part) => sum * 256 + Number(part), 0) - IPV4_BASE;
}

function ipv6Number(address: string): number {
  if (!address.startsWith(IPV6_PREFIX)) return 0;
  const groups = address.slice(IPV6_PREFIX.length).split(":");
  return groups.reduce((sum, group) => sum * 0x1_0000 + Number.parseInt(group, 16), 0);
}
