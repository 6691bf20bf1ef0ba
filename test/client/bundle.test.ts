/** The client as a page gets it: bundled for browsers, with nothing of Node. */
import { build } from "esbuild";
import { expect, test } from "vitest";

/** Minified, bytes: verifier, HPKE and all. docs/connections.md says the same of the page that uses it. */
const CEILING = 55_000;

test("is small, and brings no module of Node's", async () => {
  const { outputFiles, metafile } = await build({
    entryPoints: ["client/index.ts"],
    ...{ bundle: true, minify: true, write: false, metafile: true, platform: "browser", format: "esm" },
  });
  const code = outputFiles[0]?.text ?? "";
  expect(code.length).toBeGreaterThan(30_000);
  expect(code.length).toBeLessThanOrEqual(CEILING);
  const folders = new Set(Object.keys(metafile.inputs).map((path) => path.replace(/\/[^/]*$/, "")));
  expect([...folders].sort()).toEqual(["client", "format", "node_modules/hpke"]);
});
