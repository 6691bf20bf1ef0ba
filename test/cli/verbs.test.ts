/** What holds for every verb: help with examples, one way to ask for JSON and for silence, errors in the form asked for. */
import { build } from "esbuild";
import { describe, expect, test } from "vitest";
import { VERBS } from "../../cli/main.ts";
import { call } from "./image.ts";

/** They print another program's output, a script or a console: bytes, not values. */
const WITHOUT_JSON = ["completion", "console", "emulate", "node", "proxy"];
/** They say what they do meanwhile, or can say less. */
const WITH_QUIET = ["build", "dev", "proxy", "ps", "run"];

const verbs = await Promise.all(VERBS.map(async (verb) => ({ ...verb, shown: await verb.load() })));

test("verbs without --json, and verbs with --quiet, are these", () => {
  const having = (option: string, has: boolean) =>
    verbs.filter(({ shown }) => option in shown.options === has).map(({ name }) => name);
  expect(having("json", false).sort()).toEqual(WITHOUT_JSON);
  expect(having("quiet", true).sort()).toEqual(WITH_QUIET);
});

describe.each(verbs)("$name", ({ name, summary, shown }) => {
  const { operands, options, examples } = shown;

  test("is explained, with examples that use options it has", () => {
    expect(summary).toMatch(/^[A-Z].*[^.]$/);
    expect(examples.length).toBeGreaterThan(0);
    for (const example of examples) {
      expect(example).toContain(`cloister ${name}`);
      const [, own = ""] = example.split(`cloister ${name}`);
      const words = (/^[^|>&]*/.exec(own)?.[0] ?? "").split(" -- ")[0]?.match(/(?<= )--[a-z-]+/g) ?? [];
      for (const word of words) expect(Object.keys(options)).toContain(word.slice(2));
    }
  });

  test("has options that are explained alike", () => {
    for (const [option, { type, value, short, description }] of Object.entries(options)) {
      expect(option).toMatch(/^[a-z]+(?:-[a-z]+)*$/);
      expect(description).toMatch(/^[A-Z`].*[^.]$/s);
      expect(value === undefined).toBe(type === "boolean");
      expect(short ?? "x").toMatch(/^[a-zA-Z]$/);
    }
    const shorts = Object.values(options).flatMap(({ short }) => short ?? []);
    expect(new Set(["h", ...shorts]).size).toBe(shorts.length + 1);
    // One letter and one word mean one thing everywhere.
    for (const [option, short] of [
      ["quiet", "q"],
      ["verbose", "v"],
      ["output", "o"],
    ] as const) {
      if (option in options) expect(options[option]?.short).toBe(short);
    }
    expect(operands).not.toContain("--json");
  });

  test("tells a wrong command line on standard error, and as JSON where it is asked to", async () => {
    const plain = await call([name, "--nonsense"]);
    expect([plain.status, plain.stdout]).toEqual([2, ""]);
    expect(plain.stderr).toMatch(/^error E_USAGE: .*--nonsense/);
    const { status, stdout } = await call([name, "--json", "--nonsense"]);
    expect(status).toBe(2);
    expect(JSON.parse(stdout)).toEqual({
      Error: {
        Code: "E_USAGE",
        Message: expect.stringContaining(`cloister ${name}`),
        Fix: expect.any(String),
      },
    });
  });
});

test("help loads no verb: all of them take half a second", async () => {
  const { metafile } = await build({
    entryPoints: ["cli/main.ts"],
    bundle: true,
    write: false,
    metafile: true,
    format: "esm",
    platform: "node",
    packages: "external",
    logLevel: "silent",
  });
  const loaded = new Set(["cli/main.ts"]);
  for (const path of loaded) {
    for (const { path: target, kind, external } of metafile.inputs[path]?.imports ?? []) {
      if (kind === "import-statement" && external !== true) loaded.add(target);
    }
  }
  const own = [...loaded].filter((path) => !path.startsWith("format/")).sort();
  expect(own).toEqual(["cli/command.ts", "cli/main.ts", "cli/printable.ts", "cli/report.ts"]);
});

test("--json behind -- is another program's", async () => {
  expect(await call(["emulate", "--cores", "x", "--", "program", "--json"])).toMatchObject({
    status: 2,
    stdout: "",
  });
});

test("where standard error is JSON lines, so is the error", async () => {
  const { status, stdout, stderr } = await call(["run", "/nonexistent.eif", "--emulator", "--json"]);
  expect(status).toBe(125);
  expect(JSON.parse(stdout).Error.Code).toBe("E_EIF_READ");
  expect(JSON.parse(stderr)).toMatchObject({ type: "error", code: "E_EIF_READ", fix: expect.any(String) });
});

test("colors and progress are a terminal's", async () => {
  const plain = await call(["describe", "/nonexistent"]);
  expect(plain.stderr).not.toContain("\u001b");
  const shown = await call(["describe", "/nonexistent"], true);
  expect(shown.stderr).toContain("\u001b[");
  const none = await call(["describe", "/nonexistent"], true, "/", { NO_COLOR: "1" });
  expect(none.stderr).not.toContain("\u001b");
});
