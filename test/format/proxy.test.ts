/** The PROXY protocol's header, by the tables of haproxy's doc/proxy-protocol.txt, section 2.2. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CloisterError } from "../../format/errors.ts";
import {
  decodeProxyHeader,
  encodeProxyHeader,
  PROXY_HEADER_MAX,
  PROXY_PREFIX_SIZE,
  proxyHeaderRest,
} from "../../format/proxy.ts";
import { toHex } from "../../format/struct.ts";

const SIGNATURE = "0d0a0d0a000d0a515549540a";

function bytes(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex.replaceAll(" ", ""), "hex"));
}

const VECTORS = [
  {
    name: "TCP over IPv4",
    header: {
      source: { address: "192.0.2.7", port: 56324 },
      destination: { address: "198.51.100.1", port: 443 },
    },
    hex: `${SIGNATURE} 21 11 000c c0000207 c6336401 dc04 01bb`,
  },
  {
    name: "TCP over IPv6",
    header: {
      source: { address: "2001:db8::1", port: 1 },
      destination: { address: "::1", port: 65535 },
    },
    hex: `${SIGNATURE} 21 21 0024 20010db8000000000000000000000001 00000000000000000000000000000001 0001 ffff`,
  },
  { name: "the sender's own", header: undefined, hex: `${SIGNATURE} 20 00 0000` },
];

describe.each(VECTORS)("$name", ({ header, hex }) => {
  test("is written and read", () => {
    expect(toHex(encodeProxyHeader(header))).toBe(hex.replaceAll(" ", ""));
    expect(decodeProxyHeader(bytes(hex))).toEqual(header);
  });

  test("cut anywhere is none", () => {
    const whole = bytes(hex);
    for (let length = 0; length < whole.length; length++) {
      expect(() => decodeProxyHeader(whole.subarray(0, length))).toThrow(CloisterError);
    }
  });
});

test.each([
  // haproxy's health checks have addresses that mean nothing.
  ["LOCAL with addresses", `${SIGNATURE} 20 11 000c ${"00".repeat(12)}`],
  ["an unknown family", `${SIGNATURE} 21 00 0000`],
  ["a Unix socket", `${SIGNATURE} 21 31 00d8 ${"2f".repeat(216)}`],
])("%s has no address", (_, hex) => {
  expect(decodeProxyHeader(bytes(hex))).toBeUndefined();
});

test("TLVs are skipped: AWS's load balancers name the endpoint there", () => {
  const hex = `${SIGNATURE} 21 11 0012 c0000207 c6336401 dc04 01bb ea0003010203`;
  expect(decodeProxyHeader(bytes(hex))).toEqual(VECTORS[0]?.header);
});

test("IPv4 in an IPv6 socket is IPv4; with one of each, both are IPv6; a zone is left out", () => {
  const local = { address: "::ffff:192.0.2.1", port: 1 };
  const mapped = encodeProxyHeader({ source: local, destination: local });
  expect(decodeProxyHeader(mapped)?.source.address).toBe("192.0.2.1");
  const mixed = encodeProxyHeader({ source: local, destination: { address: "fe80::1%eth0", port: 2 } });
  expect(mixed.length).toBe(PROXY_PREFIX_SIZE + 36);
  expect(decodeProxyHeader(mixed)?.destination.address).toBe("fe80::1");
  expect(() => encodeProxyHeader({ source: { address: "a.com", port: 1 }, destination: local })).toThrow(
    "address: got a.com, expected IPv4 or IPv6",
  );
});

test.each([
  [
    "HTTP",
    toHex(Buffer.from("GET / HTTP/1.1\r\n")),
    "signature: got 474554202f20485454502f31, expected 0d0a0d",
  ],
  ["version 1", toHex(Buffer.from("PROXY TCP4 192.0.2.7 198.51")), "signature: got 50524f5859"],
  ["version 3", `${SIGNATURE} 31 11 000c`, "version and command: got 0x31, expected 0x20 or 0x21"],
  ["a command of the future", `${SIGNATURE} 22 11 000c`, "version and command: got 0x22"],
  ["UDP", `${SIGNATURE} 21 12 000c`, "family: got 0x12, expected 0x00, 0x11, 0x21, 0x31"],
  ["too short for its family", `${SIGNATURE} 21 21 000c`, "length: got 12, expected 36 to 520"],
  ["longer than a segment", `${SIGNATURE} 21 11 0209`, "length: got 521, expected 12 to 520"],
  ["the longest", `${SIGNATURE} 20 00 ffff`, "length: got 65535, expected 0 to 520"],
])("%s is refused", (_, hex, message) => {
  expect(() => proxyHeaderRest(bytes(hex))).toThrow(message);
});

test("whatever comes is a header or an E_PROXY_HEADER, and what comes back fits", () => {
  const command = fc.constantFrom(0x20, 0x21, 0x31, 0);
  const family = fc.constantFrom(0x00, 0x11, 0x12, 0x21, 0x31, 0xff);
  let accepted = 0;
  fc.assert(
    fc.property(
      command,
      family,
      fc.uint8Array({ maxLength: 300 }),
      fc.boolean(),
      (verb, kind, body, honest) => {
        const length = honest ? body.length : 0xffff - body.length;
        const frame = [...bytes(SIGNATURE), verb, kind, length >> 8, length & 255, ...body];
        try {
          const rest = proxyHeaderRest(Uint8Array.from(frame.slice(0, PROXY_PREFIX_SIZE)));
          expect(rest).toBeLessThanOrEqual(PROXY_HEADER_MAX - PROXY_PREFIX_SIZE);
          const header = decodeProxyHeader(Uint8Array.from(frame));
          if (header !== undefined) expect(decodeProxyHeader(encodeProxyHeader(header))).toEqual(header);
          accepted++;
        } catch (error) {
          expect(error).toMatchObject({ code: "E_PROXY_HEADER" });
        }
      },
    ),
  );
  expect(accepted).toBeGreaterThan(5);
});

test("every IPv6 address survives", () => {
  fc.assert(
    fc.property(fc.ipV6(), fc.integer({ min: 0, max: 65535 }), (address, port) => {
      const once = decodeProxyHeader(
        encodeProxyHeader({ source: { address, port }, destination: { address, port } }),
      );
      expect(once?.source.port).toBe(port);
      expect(decodeProxyHeader(encodeProxyHeader(once))).toEqual(once);
    }),
  );
});
