import { symlinkSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { bundleApp } from "../../packer/bundle.ts";
import { loadProject } from "../../packer/project.ts";
import { bundled, type Files, failure, fill, folder, manifest, output, run } from "./folder.ts";

describe("a bundle runs alone, where nothing else of the project is", () => {
  test.each<[string, Files, string]>([
    ["TypeScript with enums", { "app.ts": "enum A { B = 7 } console.log(A.B as number);" }, "7"],
    [
      "modules with or without their extension",
      {
        "app.ts": 'import a from "./a"; import b from "./b.ts"; console.log(a + b);',
        "a.ts": "export default 1;",
        "b.ts": "export default 2;",
      },
      "3",
    ],
    ["top-level await", { "app.ts": "console.log(await Promise.resolve(7));" }, "7"],
    [
      "tsconfig paths",
      {
        "tsconfig.json": '{ "compilerOptions": { "paths": { "@lib/*": ["./lib/*"] } } }',
        "app.ts": 'import { x } from "@lib/x"; console.log(x);',
        "lib/x.ts": "export const x = 7;",
      },
      "7",
    ],
    [
      "JSON, with and without an attribute",
      {
        "app.ts":
          'import a from "./a.json"; import b from "./a.json" with { type: "json" }; console.log(a.x + b.x);',
        "a.json": '{ "x": 3.5 }',
      },
      "7",
    ],
    [
      "files as text and as bytes",
      {
        "app.ts": `import a from "./a.txt"; import b from "./b.xyz" with { type: "text" };
          import c from "./c.bin"; import d from "./d.xyz" with { type: "bytes" }; import e from "./e.html";
          console.log(a, b, c, d, e);`,
        "a.txt": "A",
        "b.xyz": "B",
        "c.bin": Uint8Array.of(1, 255),
        "d.xyz": Uint8Array.of(2),
        "e.html": "<p>",
      },
      "A B Uint8Array(2) [ 1, 255 ] Uint8Array(1) [ 2 ] <p>",
    ],
    [
      "images as paths",
      {
        "src/app.ts": `import logo from "../logo.png"; import { readFileSync } from "node:fs";
          console.log(readFileSync(logo).length, readFileSync(new URL(logo, import.meta.url)).length);`,
        "logo.png": new Uint8Array(7),
      },
      "7 7",
    ],
    [
      "files named by URL, from several folders",
      {
        "src/app.ts": `import { readFileSync } from "node:fs"; import { other } from "../lib/other.ts";
          console.log(readFileSync(new URL("./data.txt", import.meta.url), "utf8"), other,
            readFileSync(new URL('../a b/%C3%A4.txt', import.meta.url), "utf8"));`,
        "src/data.txt": "one",
        "a b/ä.txt": "three",
        "lib/other.ts": `import fs from "node:fs";
          export const other = fs.readFileSync(new URL(\`./data.txt\`, import.meta.url), "utf8");`,
        "lib/data.txt": "two",
      },
      "one two three",
    ],
    [
      "a folder named by URL",
      {
        "app.ts": `import { readFileSync, readdirSync } from "node:fs";
          const root = new URL("./public/", import.meta.url);
          console.log(readdirSync(root).sort().join(), readFileSync(new URL("sub/x.css", root), "utf8"));`,
        "public/index.html": "<p>",
        "public/sub/x.css": "p{}",
      },
      "index.html,sub p{}",
    ],
    [
      "a worker named by URL, that imports and has assets too",
      {
        "app.ts": `import { Worker } from "node:worker_threads";
          new Worker(new URL("./jobs/worker.ts", import.meta.url)).on("message", console.log);`,
        "jobs/worker.ts": `import { parentPort } from "node:worker_threads"; import { readFileSync } from "node:fs";
          import { twice } from "../twice"; parentPort?.postMessage(
          twice(Number(readFileSync(new URL("./n.txt", import.meta.url), "utf8"))));`,
        "jobs/n.txt": "21",
        "twice.ts": "export const twice = (n: number): number => 2 * n;",
      },
      "42",
    ],
    [
      "CommonJS packages: require of a builtin, of what is absent, of what is known at run time",
      {
        "app.ts": 'import cjs from "cjs"; console.log(cjs.sep, cjs.optional, cjs.load("os").EOL === "\\n");',
        "node_modules/cjs/package.json": manifest({ name: "cjs", main: "main.js" }),
        "node_modules/cjs/main.js": `let optional = "none"; try { optional = require("absent"); } catch {}
          module.exports = { sep: require("path").sep, optional, load: (name) => require(name) };`,
      },
      "/ none true",
    ],
    [
      "a module with a require of its own",
      {
        "app.ts": `import { createRequire } from "node:module"; const require = createRequire(import.meta.url);
          console.log(require("node:path").sep);`,
      },
      "/",
    ],
    [
      "CommonJS sources",
      { "app.js": 'console.log(typeof __dirname, require("./b").x);', "b.js": "exports.x = 7;" },
      "string 7",
    ],
    [
      "a package that reads files beside its code",
      {
        "app.ts": 'import { text } from "reader"; console.log(text);',
        "node_modules/reader/package.json": manifest({
          name: "reader",
          main: "lib/main.js",
          dependencies: { dep: "1" },
        }),
        "node_modules/reader/lib/main.js": `const { join } = require("dep");
          exports.text = require("fs").readFileSync(join(__dirname, "data.txt"), "utf8");`,
        "node_modules/reader/lib/data.txt": "beside",
        "node_modules/dep/package.json": manifest({ name: "dep" }),
        "node_modules/dep/index.js": 'exports.join = require("path").join;',
      },
      "beside",
    ],
  ])("%s", async (_, files, expected) => {
    expect((await output(files)).trim()).toBe(expected);
  });
});

test("files outside the project's folder keep a place inside the app's", async () => {
  const root = folder({
    "apps/one/app.ts": `import { readFileSync } from "node:fs"; import { shared } from "../../shared/index.ts";
      console.log(shared, readFileSync(new URL("../../shared/x.txt", import.meta.url), "utf8"));`,
    "shared/index.ts": "export const shared = 7;",
    "shared/x.txt": "outside",
  });
  const { files } = await bundleApp(await loadProject({ directory: join(root, "apps/one") }));
  expect(files.map(({ path }) => path)).toEqual(["main.mjs.map", "main.mjs", "assets/_/_/shared/x.txt"]);
  expect(run(files).stdout).toBe("7 outside\n");
});

test("express and hono are bundled as they come from npm", async () => {
  const directory = folder({
    "app.ts": `import express from "express"; import { Hono } from "hono";
      const server = express().get("/", (_, response) => response.send("express")).listen(0, async () => {
        const hono = await new Hono().get("/", (c) => c.text("hono")).fetch(new Request("http://x/"));
        const answer = await fetch("http://127.0.0.1:" + server.address().port);
        console.log(await answer.text(), await hono.text());
        server.close();
      });`,
  });
  symlinkSync(join(import.meta.dirname, "../../node_modules"), join(directory, "node_modules"));
  const { files, packages } = await bundleApp(await loadProject({ directory }));
  expect(packages).toEqual([]);
  expect(run(files)).toEqual({ stdout: "express hono\n", stderr: "", status: 0 });
});

test("a stack trace names the app's own file and line", async () => {
  const files = await bundled({
    "src/app.ts": '// a comment\nimport { fail } from "../lib/fail.ts";\ninterface Unused {}\nfail();\n',
    "lib/fail.ts": 'type T = 1;\n\nexport function fail(): never {\n  throw new Error("broken");\n}\n',
  });
  const { stderr, status } = run(files);
  expect(status).toBe(1);
  expect(stderr).toMatch(/Error: broken\n\s+at fail \((?:file:\/\/)?\/app\/lib\/fail\.ts:4:9\)/);
  expect(stderr).toMatch(/\/app\/src\/app\.ts:4:1\b/);
});

test("what is odd in the app is told, what is odd in packages is not", async () => {
  const odd = 'export default typeof globalThis === "strnig";';
  const directory = folder({
    "app.ts": `import dep from "dep";\n${odd}\nconsole.log(dep);`,
    "node_modules/dep/package.json": manifest({ name: "dep" }),
    "node_modules/dep/index.js": odd,
  });
  const { warnings } = await bundleApp(await loadProject({ directory }));
  expect(warnings).toEqual(['app.ts:2: The "typeof" operator will never evaluate to "strnig"']);
});

test("no source text is in the bundle's map", async () => {
  const files = await bundled({ "app.ts": "// secret comment\nconsole.log(1);\n" });
  expect(files.map(({ path }) => path).sort()).toEqual(["main.mjs", "main.mjs.map"]);
  for (const { data } of files) expect(Buffer.from(data).toString()).not.toContain("secret comment");
});

test("the runtime stays an import, which the enclave answers", async () => {
  const [main] = (await bundled({ "app.ts": 'import { attest } from "cloister/runtime"; attest();' })).filter(
    ({ path }) => path === "main.mjs",
  );
  expect(Buffer.from(main?.data ?? []).toString()).toMatch(
    /import\s*\{\s*attest\s*\}\s*from"cloister\/runtime"/,
  );
});

test("the same files give the same bytes in another folder", async () => {
  const files: Files = {
    "src/app.ts": `import dep from "dep"; import logo from "../logo.png"; console.log(dep, logo,
      new URL("./x.txt", import.meta.url), new URL("./w.ts", import.meta.url));`,
    "src/x.txt": "x",
    "src/w.ts": "console.log(import.meta.url);",
    "logo.png": "png",
    "node_modules/dep/package.json": manifest({ name: "dep" }),
    "node_modules/dep/index.js": "module.exports = 7;",
  };
  const second = `${folder()}/a/much/deeper/place`;
  fill(second, files);
  const bundles = [folder(files), second].map(async (directory) =>
    bundleApp(await loadProject({ directory })),
  );
  const [one, two] = await Promise.all(bundles);
  expect(one?.files.length).toBe(6);
  expect(two?.files).toEqual(one?.files);
  expect(two?.packages).toEqual(one?.packages);
});

describe("what cannot work fails at build time", () => {
  const decorated =
    "function Injectable(): ClassDecorator { return () => {}; }\n@Injectable()\nexport class A {}\n";
  test.each<[string, Files, object]>([
    [
      "a syntax error",
      { "app.ts": "const a = 1;\nconst b = ;\n" },
      {
        code: "E_BUNDLE",
        message: 'app.ts:2: Unexpected ";"',
        details: expect.stringContaining("const b = ;"),
      },
    ],
    [
      "a module that is not there",
      { "app.ts": 'import "./absent";' },
      { code: "E_BUNDLE", message: 'app.ts:1: found no file for "./absent"' },
    ],
    [
      "a name that a module does not export",
      { "app.ts": 'import { absent } from "./a.ts"; console.log(absent);', "a.ts": "export const a = 1;" },
      { code: "E_BUNDLE", message: 'app.ts:1: No matching export in "a.ts" for import "absent"' },
    ],
    [
      "a package that is not installed",
      { "app.ts": '\nimport "@scope/absent/sub";' },
      {
        code: "E_PACKAGE",
        message: 'app.ts:2: package "@scope/absent" is not installed',
        details: expect.not.stringContaining("external"),
        fix: "Run `npm install @scope/absent`.",
      },
    ],
    [
      "a builtin without its prefix",
      { "app.ts": 'import "sqlite";' },
      {
        code: "E_PACKAGE",
        message: 'app.ts:1: package "sqlite" is not installed',
        fix: 'Import "node:sqlite".',
      },
    ],
    [
      "a part that a package does not export",
      {
        "app.ts": 'import "dep/absent";',
        "node_modules/dep/package.json": manifest({ name: "dep", exports: { ".": "./index.js" } }),
        "node_modules/dep/index.js": "",
      },
      { code: "E_PACKAGE", message: 'app.ts:1: package "dep" has no "dep/absent"' },
    ],
    [
      "a builtin that Node does not have",
      { "app.ts": 'import "node:absent";' },
      {
        code: "E_PACKAGE",
        message: expect.stringMatching(/^app\.ts:1: Node 26\.[\d.]+ has no "node:absent"$/),
      },
    ],
    [
      "a file that the bundler cannot load",
      { "app.ts": 'import "./a.xyz";', "a.xyz": "?" },
      {
        code: "E_LOADER",
        message: "app.ts:1: got an import of a.xyz, expected a type that can be bundled",
        fix: expect.stringContaining('{ type: "bytes" }'),
      },
    ],
    [
      "decorators that want their types",
      {
        "app.ts": 'import "./a.ts";',
        "a.ts": decorated,
        "tsconfig.json": '{"compilerOptions":{"emitDecoratorMetadata":true}}',
      },
      {
        code: "E_DECORATOR_METADATA",
        message: "tsconfig.json: got emitDecoratorMetadata, expected none, because a.ts:2 has a decorator",
      },
    ],
    [
      "the same, set in what tsconfig.json extends, with comments",
      {
        "app.ts": decorated,
        "tsconfig.json":
          '// one\n{ "extends": ["./other.json", "base/tsconfig"], /* "x": */ "compilerOptions": {}, }',
        "other.json": '{"compilerOptions":{"emitDecoratorMetadata":false}}',
        "node_modules/base/tsconfig.json": '{ "compilerOptions": { "emitDecoratorMetadata": true, }, }',
      },
      { code: "E_DECORATOR_METADATA", message: expect.stringContaining("because app.ts:2 has a decorator") },
    ],
  ])("%s", async (_, files, expected) => {
    expect(await failure(() => bundled(files))).toMatchObject(expected);
  });

  test.each<[string, Files]>([
    [
      "the option without decorators",
      { "app.ts": "const a = '@x';", "tsconfig.json": '{"compilerOptions":{"emitDecoratorMetadata":true}}' },
    ],
    [
      "decorators without the option",
      { "app.ts": decorated, "tsconfig.json": '{"compilerOptions":{"experimentalDecorators":true}}' },
    ],
    [
      "the option overruled",
      {
        "app.ts": decorated,
        "tsconfig.json": '{"extends":"./base","compilerOptions":{"emitDecoratorMetadata":false}}',
        "base.json": '{"compilerOptions":{"emitDecoratorMetadata":true}}',
      },
    ],
    [
      "a configuration that extends itself",
      { "app.ts": decorated, "tsconfig.json": '{"extends":"./tsconfig.json"}' },
    ],
  ])("but not %s", async (_, files) => {
    expect((await bundled(files)).length).toBe(2);
  });
});
