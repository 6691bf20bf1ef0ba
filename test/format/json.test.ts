import { expect, test } from "vitest";
import { isObject, JsonNode } from "../../format/json.ts";
import { refusal, utf8 } from "./vectors.ts";

const parse = (text: string) => JsonNode.parse("E_CONTROL", "document", utf8(text));

test("what every object inherits is not there", () => {
  expect(parse("{}").get("toString").present).toBe(false);
  expect(parse('{"__proto__":{"a":1}}').get("a").present).toBe(false);
  expect(parse('{"__proto__":{"a":1}}').get("__proto__").get("a").integer(1, 1)).toBe(1);
});

test("paths name arrays and nested keys", () => {
  const node = parse('{"a":[{"b":[1,"x"]}]}');
  const item = node.get("a").items()[0]?.get("b").items()[1];
  expect(refusal(() => item?.integer(0, 9))).toBe('E_CONTROL: document: a[0].b[1]: got "x", expected 0..9');
});

test.each([
  ["null", "null"],
  ["true", "true"],
  ["1e999", "Infinity"],
  ["[]", "an array of 0"],
  [`"${"x".repeat(80)}"`, `"${"x".repeat(59)}…`],
])("%s is shown as %s", (text, shown) => {
  expect(refusal(() => parse(text).object())).toBe(`E_CONTROL: document: got ${shown}, expected an object`);
});

test("only plain objects are objects", () => {
  expect([{}, [], null, 1, "x", undefined].map(isObject)).toEqual([true, false, false, false, false, false]);
});
