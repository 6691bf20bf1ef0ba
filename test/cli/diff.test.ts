/** `cloister diff`: equal or not by exit status, and each kind of difference by name. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { build } from "esbuild";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { modulesOf } from "../../cli/module.ts";
import { archive, call, file, image, saved } from "./image.ts";

const BASE = archive(file("init", "init", 0o755));
const DIR = { type: "directory", path: "app", mode: 0o755 } as const;
const APP = archive(DIR, file("app/a", "1"), file("app/b", "2"));

async function diff(a: string, b: string) {
  const { status, stdout } = await call(["diff", a, b, "--json"]);
  const text = await call(["diff", a, b]);
  expect(text.status).toBe(status);
  return { status, text: text.stdout, json: JSON.parse(stdout) };
}

test("the same bytes are equal", async () => {
  const { status, text, json } = await diff(
    image({ ramdisks: [BASE, APP] }),
    image({ ramdisks: [BASE, APP] }),
  );
  expect([status, text]).toEqual([0, "equal, byte for byte\n"]);
  expect(json).toMatchObject({ Equal: true, Facts: [], Files: [], Modules: [], Notes: [] });
  expect(json.Measurements.PCR0).toMatchObject({ Equal: true });
});

test("files that came, went and changed, and the register they are in", async () => {
  const a = image({ ramdisks: [BASE, APP] });
  const b = image({
    ramdisks: [
      archive(file("init", "init", 0o700)),
      archive(DIR, file("app/b", "22"), { type: "symlink", path: "app/c", target: "b" }),
    ],
  });
  const { status, text, json } = await diff(a, b);
  expect(status).toBe(1);
  expect(json.Files.map(({ Register, Path }: Record<string, string>) => `${Register} ${Path}`)).toEqual([
    "PCR1 init",
    "PCR2 app/a",
    "PCR2 app/b",
    "PCR2 app/c",
  ]);
  expect(text).toContain("  ~ init  -rwxr-xr-x → -rwx------\n");
  expect(text).toMatch(/^ {2}- app\/a {2}-rw-r--r-- 1 bytes SHA-256 [0-9a-f]{12}$/m);
  expect(text).toMatch(/^ {2}~ app\/b {2}1 → 2 bytes, SHA-256 \w{12} → \w{12}$/m);
  expect(text).toContain("  + app/c  lrwxrwxrwx 1 bytes\n");
});

test("what no register measures is said to be that", async () => {
  const { status, text, json } = await diff(
    image({ ramdisks: [BASE] }),
    image({ ramdisks: [BASE], name: "other" }),
  );
  expect(status).toBe(1);
  expect(Object.values(json.Measurements).every((pcr) => (pcr as { Equal: boolean }).Equal)).toBe(true);
  expect(json.Facts).toMatchObject([{ Name: "Metadata" }]);
  expect(text).toContain("only what no register measures differs");
});

test("the command line", async () => {
  const { json } = await diff(image({ ramdisks: [BASE] }), image({ ramdisks: [BASE], cmdline: "quiet" }));
  expect(json.Facts).toEqual([{ Name: "Cmdline", A: "console=ttyS0", B: "quiet" }]);
  expect(json.Measurements).toMatchObject({ PCR0: { Equal: false }, PCR1: { Equal: false } });
});

describe("the same files", () => {
  test.each([
    ["another compression", gzipSync(APP), zstdCompressSync(APP), "PCR2: ramdisks are stored as gzip → zstd"],
    [
      "another level",
      gzipSync(APP, { level: 1 }),
      gzipSync(APP, { level: 9 }),
      "PCR2: the same files are stored",
    ],
    ["what cannot be listed", Buffer.from([2, 0x21]), Buffer.from([2, 0x21, 0]), "PCR2: not all is compared"],
  ])("%s is explained", async (_, left, right, note) => {
    const { json } = await diff(image({ ramdisks: [BASE, left] }), image({ ramdisks: [BASE, right] }));
    expect(json).toMatchObject({ Files: [], Notes: [expect.stringContaining(note)] });
  });
});

// Whatever byte it is: unequal files are never without a reason.
test("every single changed byte is found and explained", async () => {
  const whole = readFileSync(image({ ramdisks: [BASE, APP] }));
  const a = saved(whole);
  let compared = 0;
  await fc.assert(
    fc.asyncProperty(fc.nat(whole.length - 1), async (offset) => {
      const damaged = Uint8Array.from(whole);
      damaged[offset] = (damaged[offset] ?? 0) ^ 0x10;
      const { status, stdout } = await call(["diff", a, saved(damaged), "--json"]);
      const json = JSON.parse(stdout);
      if (status === 2) {
        expect(json.Error.Code).toMatch(/^E_EIF/);
        return;
      }
      compared++;
      expect([status, json.Equal]).toEqual([1, false]);
      expect(json.Facts.length + json.Files.length + json.Notes.length).toBeGreaterThan(0);
    }),
  );
  expect(compared).toBeGreaterThan(0);
});

test("trouble is neither equal nor different", async () => {
  const a = image({ ramdisks: [BASE] });
  expect((await call(["diff", a, "/nonexistent"])).status).toBe(2);
  const { status, stdout } = await call(["diff", saved(Buffer.from("x")), a, "--json"]);
  expect([status, JSON.parse(stdout).Error.Code]).toEqual([2, "E_EIF_MAGIC"]);
  expect((await call(["diff", a])).status).toBe(2);
});

describe("modules of a bundle", () => {
  async function bundle(files: Readonly<Record<string, string>>) {
    const { outputFiles } = await build({
      stdin: { contents: files["main.js"] ?? "", sourcefile: "main.js", resolveDir: "/" },
      bundle: true,
      write: false,
      format: "esm",
      minifyWhitespace: true,
      minifySyntax: true,
      sourcemap: "external",
      outfile: "/out.mjs",
      logLevel: "silent",
      plugins: [
        {
          name: "memory",
          setup({ onResolve, onLoad }) {
            onResolve({ filter: /^\.\// }, ({ path }) => ({ path: path.slice(2), namespace: "memory" }));
            onLoad({ filter: /.*/, namespace: "memory" }, ({ path }) => ({ contents: files[path] ?? "" }));
          },
        },
      ],
    });
    const [map = "", code = ""] = outputFiles.map(({ text }) => text);
    return { code, map };
  }
  const app = (files: Readonly<Record<string, string>>) => bundle(files);
  const one = 'export const one = () => console.log("one");';
  const two = 'export const two = () => console.log("two");';
  const main = 'import { one } from "./one.js"; import { two } from "./two.js"; one(); two();';

  test("only the one that was edited differs", async () => {
    const [a, b] = await Promise.all([
      app({ "main.js": main, "one.js": one, "two.js": two }),
      app({ "main.js": main, "one.js": one.replace('"one"', '"uno, due"'), "two.js": two }),
    ]);
    const ramdisk = ({ code, map }: { code: string; map: string }) =>
      archive(DIR, file("app/main.mjs", code), file("app/main.mjs.map", map));
    const { json, text } = await diff(
      image({ ramdisks: [BASE, ramdisk(a)] }),
      image({ ramdisks: [BASE, ramdisk(b)] }),
    );
    expect(json.Modules).toMatchObject([{ Path: "app/main.mjs: memory:one.js" }]);
    expect(json.Modules[0].B.Size - json.Modules[0].A.Size).toBe(5);
    expect(text).toMatch(/~ app\/main\.mjs: memory:one\.js {2}\d+ → \d+ characters/);
  });

  test("are cut out exactly", () => {
    // Hand-made: "ab" of x, "cd" of y, a gap without source, "e" of x again on the next line.
    const map = { version: 3, sources: ["x", "y"], mappings: "AAAA,ECAA,E;ADAA" };
    const modules = modulesOf("abcd--\ne", JSON.stringify(map));
    const sha = (text: string) => createHash("sha256").update(text).digest("hex");
    expect([...modules]).toEqual([
      ["x", { size: 3, sha256: sha("abe") }],
      ["y", { size: 2, sha256: sha("cd") }],
    ]);
  });

  test.each(["", "null", "{}", '{"version":3,"sources":[1],"mappings":""}'])("%j is no map", (map) => {
    expect(modulesOf("code", map).size).toBe(0);
  });

  test("nonsense maps do no harm", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 50 }), (mappings) => {
        const map = JSON.stringify({ version: 3, sources: ["x"], mappings });
        expect(modulesOf("some\ncode", map).size).toBe(1);
      }),
    );
  });
});
