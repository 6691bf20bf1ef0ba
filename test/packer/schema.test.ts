/** The JSON schema against the parser: what one takes the other takes, but for what no schema can say. */
import { readFileSync } from "node:fs";
import { Ajv } from "ajv";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { schemaText } from "../../docs/schema.ts";
import { parseConfig } from "../../packer/config.ts";
import { configSchema } from "../../packer/schema.ts";

const validate = new Ajv({
  allErrors: true,
  strict: true,
  strictTypes: false,
  strictRequired: false,
}).compile(configSchema());

/** The message after the file's name; undefined: valid. */
function problem(config: unknown): string | undefined {
  try {
    parseConfig(config, "c");
    return undefined;
  } catch (error) {
    return (error as Error).message.slice("c: ".length);
  }
}

/** Fields of which the parser knows more: what a text means, and how two fields go together. */
const PARSER_ALONE = [
  /^memory: got "0*\d+[MG]", /,
  /^tmp: got ("\d+[MG]"|\d+), /,
  /^tmp: got undefined, /,
  /^egress\[\d+\]: got "/,
  /^redact\[\d+\]: got "/,
  // A lone surrogate.
  /^env\.\w+: got ".*\\ud[89a-f]..*", /,
];

const junk = fc.oneof(
  fc.constantFrom(null, true, "", "x", 0, 1, 1.5, -1, {}, []),
  fc.jsonValue({ maxDepth: 1 }),
);

function field(...good: fc.Arbitrary<unknown>[]): fc.Arbitrary<unknown> {
  return fc.oneof({ weight: 6, arbitrary: fc.oneof(...good) }, { weight: 1, arbitrary: junk });
}

const size = field(
  fc.integer({ min: 0, max: 1100 }),
  fc.constantFrom(64, 1024 * 1024, 1024 * 1024 + 2),
  fc.tuple(fc.nat(3000), fc.constantFrom("M", "G", "K", "")).map(([n, unit]) => `${n}${unit}`),
);
const list = (...good: fc.Arbitrary<unknown>[]) => field(fc.array(field(...good), { maxLength: 3 }));
const flag = field(fc.boolean());

const config = fc.record(
  {
    $schema: field(fc.string()),
    name: field(fc.constantFrom("app", "a".repeat(64), "a".repeat(65), "-a", "a b", "a\n"), fc.string()),
    entry: field(fc.constantFrom("app.ts", "a\u0000b"), fc.string()),
    memory: size,
    cpus: field(fc.integer({ min: -1, max: 514 })),
    ports: list(fc.integer({ min: 0, max: 3 }), fc.constantFrom(0xffff_fffe, 0xffff_ffff)),
    env: field(
      fc.dictionary(fc.constantFrom("A", "b_2", "1X", "", "__proto__", "É"), field(fc.string()), {
        maxKeys: 3,
      }),
    ),
    egress: list(
      fc.constantFrom(
        "a.com:443",
        "*.b.com:*",
        "10.0.0.5:1",
        "[2001:db8::1]:443",
        "a.com",
        "https://a",
        "a:0",
        "*:1",
      ),
      fc.tuple(fc.domain(), fc.nat(70_000)).map(([host, port]) => `${host}:${port}`),
      fc.ipV6().map((address) => `[${address}]:443`),
    ),
    ca: list(fc.constantFrom("ca.pem")),
    attestation: flag,
    tls: flag,
    ready: field(fc.constantFrom("listen", "app", "later")),
    redact: list(fc.constantFrom("password", "/x/", "/(/", "/x"), fc.string()),
    tmp: size,
    proxyProtocol: flag,
    compression: field(
      fc.record(
        {
          algorithm: field(fc.constantFrom("none", "gzip", "zstd", "xz")),
          level: field(fc.integer({ min: 0, max: 23 })),
          other: fc.constant(1),
        },
        { requiredKeys: [] },
      ),
    ),
    nonsense: fc.constant(1),
  },
  { requiredKeys: [] },
);

/** A few fields of it at a time, for of all of them some are always wrong. */
const partial = fc.tuple(config, fc.array(fc.nat(20), { maxLength: 4 })).map(([all, chosen]) => {
  const entries = Object.entries(all);
  return Object.fromEntries(entries.filter((_, index) => chosen.includes(index)));
});

test("schema and parser agree", () => {
  const seen = { both: 0, neither: 0, parserAlone: 0 };
  fc.assert(
    fc.property(fc.oneof({ weight: 9, arbitrary: partial }, { weight: 1, arbitrary: junk }), (value) => {
      const message = problem(value);
      const isValid = validate(value);
      if (message === undefined) {
        seen.both++;
        expect(validate.errors ?? []).toEqual([]);
      } else if (isValid) {
        seen.parserAlone++;
        expect(PARSER_ALONE.filter((reason) => reason.test(message)).length, message).toBeGreaterThan(0);
      } else seen.neither++;
    }),
    { numRuns: 5000 },
  );
  for (const count of Object.values(seen)) expect(count).toBeGreaterThan(20);
});

describe("the schema refuses", () => {
  test.each([
    { memory: 63 },
    { memory: "512MB" },
    { cpus: 0 },
    { ports: [80, 80] },
    { env: { A: 1 } },
    { env: { "1X": "" } },
    { egress: ["https://a.com"] },
    { tls: true, attestation: false },
    { ready: true },
    { compression: { algorithm: "none", level: 1 } },
    { compression: { algorithm: "gzip", level: 10 } },
    { compression: { algorithm: "xz" } },
    { prots: [] },
    null,
  ])("%j, as the parser does", (value) => {
    expect([validate(value), problem(value)]).toEqual([false, expect.any(String)]);
  });
});

test("every field has words for an editor to show", () => {
  const { properties } = configSchema() as { readonly properties: Record<string, { description?: string }> };
  const known = problem({ nonsense: 1 })?.split("expected only ")[1]?.split(", ") ?? [];
  expect(Object.keys(properties)).toEqual(["$schema", ...known]);
  for (const [, { description }] of Object.entries(properties)) expect(description).toMatch(/[.…]$/);
});

test("cloister.schema.json is current: `node docs/schema.ts` writes it", () => {
  expect(readFileSync("cloister.schema.json", "utf8")).toBe(schemaText());
});
