import { isIP } from "node:net";
import fc from "fast-check";
import { expect, test } from "vitest";
import { canonicalHost } from "../../format/egress.ts";
import { Names } from "../../runtime/names.ts";

test("an address stands for its name, of either family, and stays the same", () => {
  const names = new Names();
  fc.assert(
    fc.property(fc.domain(), fc.constantFrom<4 | 6>(4, 6), (name, family) => {
      const address = names.addressOf(name, family);
      expect(isIP(address)).toBe(family);
      expect(canonicalHost(address)).toBe(address);
      expect(names.find(address)).toEqual({ name, family });
      expect(names.addressOf(name, family)).toBe(address);
    }),
  );
  expect(names.addressOf("first.example", 4)).toMatch(/^198\.1[89]\./);
});

test("every address of a full table is one of the benchmark ranges, and no other's", () => {
  const names = new Names();
  const seen = new Set<string>();
  for (let i = 0; i < 2 ** 17 - 1; i++) seen.add(names.addressOf(`n${i}`, 4));
  expect(seen.size).toBe(2 ** 17 - 1);
  expect(names.addressOf("n131070", 4)).toBe("198.19.255.255");
  expect(names.find(names.addressOf("n131070", 6))).toEqual({ name: "n131070", family: 6 });
  expect(names.find(names.addressOf("n65535", 6))).toEqual({ name: "n65535", family: 6 });
});

test("the oldest name gives up its address when the table is full", () => {
  const names = new Names(2);
  const a = names.addressOf("a", 4);
  const b = names.addressOf("b", 4);
  expect(names.addressOf("c", 4)).toBe(a);
  expect([names.find(a)?.name, names.find(b)?.name]).toEqual(["c", "b"]);
  expect(names.addressOf("a", 4)).toBe(b);
});

test("an address of another network stands for nothing, whatever it ends in", () => {
  const names = new Names();
  const [v4, v6] = [names.addressOf("a", 4), names.addressOf("a", 6)];
  expect(v6).toBe("2001:2::1");
  expect([names.find("2001:3::1"), names.find("2001:2:1::1"), names.find("::1")]).toEqual([
    undefined,
    undefined,
    undefined,
  ]);
  expect([names.find(v4)?.name, names.find("198.20.0.1"), names.find("10.0.0.1")]).toEqual([
    "a",
    undefined,
    undefined,
  ]);
});

test.each([
  "198.18.0.0",
  "198.18.0.1",
  "198.17.255.255",
  "8.8.8.8",
  "2001:2::",
  "2001:2::1",
  "2001:db8::1",
  "::1",
])("%s stands for nothing before a name was asked for", (address) =>
  expect(new Names().find(address)).toBeUndefined(),
);
