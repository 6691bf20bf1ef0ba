import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  canonicalHost,
  EGRESS_EXPECTED,
  EgressList,
  egressRuleFor,
  isLoopback,
  parseEgressRule,
} from "../../format/egress.ts";

describe("one spelling of a host", () => {
  test.each([
    ["API.Example.COM", "api.example.com"],
    ["api.example.com.", "api.example.com"],
    ["_sip._tcp.example.com", "_sip._tcp.example.com"],
    ["xn--bcher-kva.example", "xn--bcher-kva.example"],
    ["db", "db"],
    ["10.0.0.5", "10.0.0.5"],
    ["2001:DB8:0:0::1", "2001:db8::1"],
    ["::", "::"],
    ["::ffff:10.0.0.5", "10.0.0.5"],
    ["::ffff:a00:5", "10.0.0.5"],
    ["0:0:0:0:0:ffff:255.255.255.255", "255.255.255.255"],
  ])("%s is %s", (host, canonical) => expect(canonicalHost(host)).toBe(canonical));

  test.each([
    "",
    ".",
    "a..b",
    "-a.com",
    "a-.com",
    "a b",
    "a/b",
    "user@a.com",
    "bücher.example",
    "1.2.3",
    "1.2.3.4.5",
    "256.1.1.1",
    "01.2.3.4",
    "0x7f.1",
    "a.0x7f",
    "a.1",
    "fe80::1%eth0",
    "[::1]",
    ":::",
    "1::2::3",
    "::ffff:10.0.0.256",
    `${"a".repeat(64)}.com`,
    `${"a.".repeat(127)}com`,
    "a\0.com",
    "*.a.com",
  ])("%j is none", (host) => expect(canonicalHost(host)).toBeUndefined());

  test("is its own spelling, whatever the text", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.domain(), fc.ipV4(), fc.ipV6()), (text) => {
        const canonical = canonicalHost(text);
        if (canonical !== undefined) expect(canonicalHost(canonical)).toBe(canonical);
      }),
    );
  });

  test("every address has one", () => {
    fc.assert(fc.property(fc.ipV4(), (address) => canonicalHost(address) === address));
    fc.assert(fc.property(fc.ipV6(), (address) => canonicalHost(address) !== undefined));
  });
});

test.each(["127.0.0.1", "127.255.0.1", "0.0.0.0", "::1", "::", "localhost", "a.localhost"])(
  "%s is the machine itself",
  (host) => expect(isLoopback(host)).toBe(true),
);
test.each(["128.0.0.1", "10.127.0.1", "::2", "localhost.example", "notlocalhost", "1270.example"])(
  "%s is not",
  (host) => expect(isLoopback(host)).toBe(false),
);

describe("a rule", () => {
  test.each([
    ["api.stripe.com:443", "api.stripe.com", 443],
    ["*.amazonaws.com:443", ".amazonaws.com", 443],
    ["*.internal:*", ".internal", 0],
    ["10.0.0.5:5432", "10.0.0.5", 5432],
    ["[2001:DB8::1]:65535", "2001:db8::1", 65_535],
    ["[::ffff:10.0.0.5]:1", "10.0.0.5", 1],
    ["DB:1", "db", 1],
  ])("%s", (text, host, port) => expect(parseEgressRule(text)).toEqual({ text, host, port }));

  test.each([
    "",
    "a.com",
    ":443",
    "a.com:",
    "a.com:0",
    "a.com:65536",
    "a.com:443 ",
    " a.com:443",
    "a.com:-1",
    "a.com:1e3",
    "https://a.com:443",
    "a.com:443/path",
    "*:443",
    "*.:443",
    "*.*.a.com:443",
    "a.*.com:443",
    "*a.com:443",
    "*.10.0.0.5:443",
    "10.0.0.0/8:443",
    "2001:db8::1:443",
    "[2001:db8::1]",
    "[10.0.0.5]:443",
    "[a.com]:443",
    "localhost:80",
    "*.localhost:80",
    "127.0.0.1:80",
    "[::1]:80",
    "0.0.0.0:80",
  ])("%j is none", (text) => expect(parseEgressRule(text)).toBeUndefined());

  test("never throws", () => {
    fc.assert(fc.property(fc.string(), (text) => void parseEgressRule(text)));
  });
});

describe("the list", () => {
  const list = new EgressList(["api.stripe.com:443", "*.aws.com:443", "10.0.0.5:*", "[2001:db8::1]:5432"]);

  test.each([
    ["api.stripe.com", 443, true],
    ["api.stripe.com", 80, false],
    ["x.api.stripe.com", 443, false],
    ["stripe.com", 443, false],
    ["s3.aws.com", 443, true],
    ["a.b.aws.com", 443, true],
    ["aws.com", 443, false],
    ["evilaws.com", 443, false],
    ["aws.com.evil", 443, false],
    [".aws.com", 443, false],
    ["10.0.0.5", 1, true],
    ["10.0.0.50", 1, false],
    ["2001:db8::1", 5432, true],
    ["2001:db8::1", 5433, false],
  ])("%s:%i: %s", (host, port, allowed) => expect(list.allows(host, port)).toBe(allowed));

  test("tells names that may be asked for, at whatever port", () => {
    expect(["s3.aws.com", "api.stripe.com", "aws.com", "a.com"].map((name) => list.allowsHost(name))).toEqual(
      [true, true, false, false],
    );
  });

  test("empty allows nothing", () => {
    const empty = new EgressList([]);
    fc.assert(
      fc.property(fc.domain(), fc.integer({ min: 1, max: 65_535 }), (host, port) => {
        expect(empty.allows(host, port) || empty.allowsHost(host)).toBe(false);
      }),
    );
  });

  test("allows exactly what the rule it proposes says", () => {
    const host = fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6()).map((text) => canonicalHost(text) ?? "x");
    const port = fc.integer({ min: 1, max: 65_535 });
    fc.assert(
      fc.property(host, port, host, port, (a, portA, b, portB) => {
        fc.pre(!isLoopback(a));
        const one = new EgressList([egressRuleFor(a, portA)]);
        expect(one.allows(a, portA)).toBe(true);
        expect(one.allows(b, portB)).toBe(a === b && portA === portB);
      }),
    );
  });

  test("a wildcard allows what ends in it, and no more", () => {
    fc.assert(
      fc.property(fc.domain(), fc.domain(), (suffix, host) => {
        const wild = new EgressList([`*.${suffix}:443`]);
        const [name = "", base = ""] = [canonicalHost(host), canonicalHost(suffix)];
        expect(wild.allows(`x.${base}`, 443)).toBe(true);
        expect(wild.allows(base, 443)).toBe(false);
        expect(wild.allows(name, 443)).toBe(name.endsWith(`.${base}`));
      }),
    );
  });

  test("refuses a text that is no rule", () => {
    expect(() => new EgressList(["a.com"])).toThrow(`egress: got "a.com", expected ${EGRESS_EXPECTED}`);
  });
});
