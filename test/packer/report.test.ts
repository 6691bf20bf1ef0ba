/** What a report says of projects made of fake packages: sizes, who imports whom, licenses, digests. */
import { symlinkSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";
import { describe, expect, test } from "vitest";
import { bundleApp } from "../../packer/bundle.ts";
import { PROGRAM_PACKAGES } from "../../packer/program.ts";
import { loadProject } from "../../packer/project.ts";
import { NODE, readRelease } from "../../packer/release.ts";
import { makeReport, type Report } from "../../packer/report.ts";
import { type Files, folder, manifest } from "./folder.ts";

async function reportOf(directory: string): Promise<Report> {
  const project = await loadProject({ directory });
  return makeReport(project, await bundleApp(project), readRelease());
}

function ofFiles(files: Files): Promise<Report> {
  return reportOf(folder(files));
}

const TEXT = (letter: string) => `export const ${letter} = ${JSON.stringify(letter.repeat(500))};\n`;

/** app.ts → lib/one.ts → alpha → @scope/beta; app.ts → gamma, of which nothing is used. */
const FILES: Files = {
  "package.json": manifest({ name: "app", version: "1.2.3" }),
  "app.ts": 'import "./lib/one.ts"; import "gamma"; import logo from "./logo.png"; console.log(logo);',
  "lib/one.ts": 'import { a } from "alpha"; console.log(a);',
  "logo.png": "12345",
  "node_modules/alpha/package.json": manifest({ name: "alpha", main: "index.mjs", license: "MIT" }),
  "node_modules/alpha/index.mjs": 'import { b } from "@scope/beta"; import "./more.mjs"; export const a = b;',
  "node_modules/alpha/more.mjs": 'console.log("more");',
  "node_modules/@scope/beta/package.json": manifest({
    name: "@scope/beta",
    main: "index.mjs",
    licenses: [{ type: "MIT" }, { type: "Apache-2.0" }],
  }),
  "node_modules/@scope/beta/index.mjs": TEXT("b"),
  "node_modules/gamma/package.json": manifest({ name: "gamma", main: "index.mjs", sideEffects: false }),
  "node_modules/gamma/index.mjs": 'export { b } from "@scope/beta";',
};

describe("a bundle of three packages", () => {
  test("is told module by module and package by package", async () => {
    const report = await ofFiles(FILES);
    expect(report).toMatchObject({
      name: "app",
      version: "1.2.3",
      entry: "app.ts",
      imports: ["alpha@1.0.0"],
    });
    expect(report.packages).toMatchObject([
      {
        name: "@scope/beta",
        version: "1.0.0",
        license: "(MIT OR Apache-2.0)",
        purl: "pkg:npm/%40scope/beta@1.0.0",
        files: 1,
        isCopied: false,
        why: ["app.ts", "lib/one.ts", "alpha", "@scope/beta"],
        imports: [],
      },
      {
        name: "alpha",
        license: "MIT",
        files: 2,
        why: ["app.ts", "lib/one.ts", "alpha"],
        imports: ["@scope/beta@1.0.0"],
      },
    ]);
    expect(report.modules[0]).toMatchObject({ package: "@scope/beta@1.0.0" });
    expect(report.modules.map(({ path }) => path)).toContain("lib/one.ts");
    expect(report.assets).toEqual([{ path: expect.stringMatching(/^assets\/logo-\w+\.png$/), sizeBytes: 5 }]);
  });

  test("has sizes that add up to no more than the bundle", async () => {
    const { modules, packages, bundleBytes, sizeBytes } = await ofFiles(FILES);
    const sum = (rows: readonly { readonly sizeBytes: number }[]) =>
      rows.reduce((total, row) => total + row.sizeBytes, 0);
    const foreign = modules.filter((module) => module.package !== undefined);
    expect(sum(foreign)).toBe(sum(packages));
    expect(sum(modules)).toBeLessThanOrEqual(bundleBytes);
    expect(bundleBytes).toBeLessThan(sizeBytes);
    expect(packages[0]?.sizeBytes).toBeGreaterThan(500);
  });
});

test("two versions are two rows, two copies of one version are one", async () => {
  const copy = (name: string, version: string, code: string): Files => ({
    [`${name}/package.json`]: manifest({ name: "dep", version, main: "index.mjs" }),
    [`${name}/index.mjs`]: code,
  });
  const { packages } = await ofFiles({
    "app.ts": 'import "one"; import "two"; import "dep";',
    "node_modules/one/package.json": manifest({ name: "one" }),
    "node_modules/one/index.js": 'import "dep";',
    "node_modules/two/package.json": manifest({ name: "two" }),
    "node_modules/two/index.js": 'import "dep";',
    ...copy("node_modules/dep", "1.0.0", "console.log(1);"),
    ...copy("node_modules/one/node_modules/dep", "2.0.0", "console.log(2);"),
    ...copy("node_modules/two/node_modules/dep", "2.0.0", "console.log(3);"),
  });
  const deps = packages.filter(({ name }) => name === "dep");
  expect(deps.map(({ version, files }) => [version, files]).sort()).toEqual([
    ["1.0.0", 1],
    ["2.0.0", 2],
  ]);
});

test("packages copied whole: what brings them, with all their files", async () => {
  const { packages, imports } = await ofFiles({
    "app.ts": 'import reader from "reader"; console.log(reader);',
    "node_modules/reader/package.json": manifest({ name: "reader", dependencies: { below: "1" } }),
    "node_modules/reader/index.js": "exports.at = __dirname;",
    "node_modules/reader/data.txt": "12345",
    "node_modules/below/package.json": manifest({ name: "below", license: { type: "ISC" } }),
    "node_modules/below/index.js": "",
  });
  expect(imports).toEqual(["reader@1.0.0"]);
  expect(packages).toMatchObject([
    { name: "reader", isCopied: true, files: 3, why: ["app.ts", "reader"], imports: ["below@1.0.0"] },
    { name: "below", isCopied: true, license: "ISC", why: ["app.ts", "reader", "below"] },
  ]);
});

describe("digests come from the lockfile:", () => {
  const integrity = `sha512-${Buffer.alloc(64, 7).toString("base64")}`;
  const digests = [{ algorithm: "SHA-512", value: "07".repeat(64) }];
  const locks: Files = {
    "package-lock.json": JSON.stringify({ packages: { "node_modules/@scope/beta": { integrity } } }),
    "pnpm-lock.yaml": `packages:\n\n  '@scope/beta@1.0.0':\n    resolution: {integrity: ${integrity}}\n`,
    "yarn.lock": `"@scope/beta@^1.0.0":\n  version "1.0.0"\n  resolved "x"\n  integrity ${integrity}\n`,
    "bun.lock": `{\n  "packages": {\n    "@scope/beta": ["@scope/beta@1.0.0", "", {}, "${integrity}"],\n  }\n}\n`,
  };

  test.each(Object.entries(locks))("%s", async (name, text) => {
    const { packages } = await ofFiles({ ...FILES, [name]: text });
    expect(packages.map(({ digests }) => digests)).toEqual([digests, []]);
  });

  test.each(["", "null", "[]", '{"packages":{"node_modules/alpha":{"integrity":7}}}', '{"packages":[1]}'])(
    "%j says nothing",
    async (text) => {
      const { packages } = await ofFiles({ ...FILES, "package-lock.json": text });
      expect(packages.flatMap(({ digests }) => digests)).toEqual([]);
    },
  );
});

test("the same project elsewhere has the same report", async () => {
  expect(await ofFiles(FILES)).toEqual(await ofFiles(FILES));
});

test("a workspace's package is the app's own; pnpm's links are seen through", async () => {
  const directory = folder({
    ...FILES,
    "app.ts": 'import { a } from "linked"; console.log(a);',
    "store/node_modules/linked/package.json": manifest({ name: "linked", main: "index.mjs" }),
    "store/node_modules/linked/index.mjs": TEXT("a"),
  });
  symlinkSync(join(directory, "store/node_modules/linked"), join(directory, "node_modules/linked"));
  expect((await reportOf(directory)).packages).toMatchObject([{ name: "linked", why: ["app.ts", "linked"] }]);
});

describe("what is below the app", () => {
  test("is the release's", async () => {
    const { platform } = await ofFiles({ "app.ts": "" });
    const names = platform.map(({ name }) => name);
    expect(names).toEqual(
      expect.arrayContaining(["linux", "libc6", "node", "openssl", "v8", "cloister", "hpke"]),
    );
    expect(platform.find(({ name }) => name === "node")).toMatchObject({ version: NODE.version });
    expect(platform.find(({ name }) => name === "linux")?.version).toMatch(/^\d+\.\d+\.\d+$/);
    expect(platform.filter(({ license }) => license === undefined)).toEqual([]);
  });

  test("names every package that our programs are made of", async () => {
    const { metafile } = await build({
      entryPoints: ["init/main.ts", "init/housekeeping.ts", "init/preload.ts"],
      outdir: "out",
      bundle: true,
      write: false,
      metafile: true,
      format: "cjs",
      platform: "node",
      logLevel: "silent",
    });
    const used = Object.values(metafile.outputs).flatMap(({ inputs }) => Object.keys(inputs));
    const packages = used.flatMap((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1] ?? []);
    expect([...new Set(packages)]).toEqual([...PROGRAM_PACKAGES]);
  });
});
