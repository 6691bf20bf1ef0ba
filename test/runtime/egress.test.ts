/** Where a connect may go, as the handles below sockets ask it: what a socket was asked for is refused before (outbound.test.ts). */
import { describe, expect, test } from "vitest";
import { Egress } from "../../runtime/egress.ts";
import { Tally } from "../../runtime/tally.ts";

const outbound = {
  lookup: () => Promise.reject(new Error("asked")),
  resolve: () => Promise.reject(new Error("asked")),
};
const said: string[] = [];
const tally = new Tally();
const rules = ["a.test:443", "*.b.test:*", "10.0.0.5:5432", "[2001:db8::1]:7"];
const egress = new Egress({ rules, outbound, say: (line) => said.push(line), tally });

describe("a destination", () => {
  test.each<[string, number, string | null | undefined, object]>([
    ["10.0.0.5", 5432, null, { host: "10.0.0.5", port: 5432, family: 0 }],
    ["2001:db8::1", 7, undefined, { host: "2001:db8::1", port: 7, family: 0 }],
    ["203.0.113.1", 443, "A.test", { host: "a.test", port: 443, family: 0 }],
    ["203.0.113.1", 1, "x.b.test", { host: "x.b.test", port: 1, family: 0 }],
  ])("%s port %d, looked up as %s", (address, port, name, expected) => {
    expect(egress.destination(address, port, name)).toEqual(expected);
  });

  test.each<[string, number, string | null | undefined]>([
    ["10.0.0.5", 5433, null],
    ["10.0.0.6", 5432, undefined],
    ["203.0.113.1", 443, null],
    ["203.0.113.1", 80, "a.test"],
    ["203.0.113.1", 443, "evil.test"],
    ["203.0.113.1", 443, "no name"],
    ["198.18.0.1", 443, null],
  ])("is none: %s port %d, looked up as %s", (address, port, name) => {
    expect(egress.destination(address, port, name)).toBeUndefined();
  });

  test("of an address that stands for a name is the name, whatever it was looked up as", () => {
    const [v4, v6] = [egress.names.addressOf("a.test", 4), egress.names.addressOf("a.test", 6)];
    expect(egress.destination(v4, 443)).toEqual({ host: "a.test", port: 443, family: 4 });
    expect(egress.destination(v6, 443)).toEqual({ host: "a.test", port: 443, family: 6 });
    expect(egress.destination(v4, 80)).toBeUndefined();
    expect(egress.destination(v4, 1, "x.b.test")).toBeUndefined();
  });
});

test("what is denied is named by its rule, logged and counted", () => {
  const before = tally.denied;
  const address = egress.names.addressOf("a.test", 4);
  expect(egress.denyConnect(address, 80).message).toContain('expected egress: ["a.test:80"]');
  expect(egress.denyConnect("2001:DB8::2", 80).fix).toContain('egress: ["[2001:db8::2]:80"]');
  expect(egress.denyName("evil.test").code).toBe("E_EGRESS_DENIED");
  expect(egress.denyDatagram("8.8.8.8", 53).code).toBe("E_EGRESS_UDP");
  expect(said).toHaveLength(4);
  expect(tally.denied - before).toBe(4);
});

test.each([
  [Object.assign(new Error("connect"), { code: "ECONNRESET" }), "got ECONNRESET from"],
  [
    Object.assign(new Error("status: got 1, expected less"), { code: "E_OUTBOUND" }),
    "got status: got 1, expected less from",
  ],
])("a parent without a proxy is said to be one: %s", (cause, text) => {
  expect(egress.fail("connect a.test:443", cause)).toMatchObject({ code: "E_EGRESS_PROXY", cause });
  expect(said.at(-1)).toContain(text);
});
