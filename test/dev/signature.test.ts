import { expect, test } from "vitest";
import type { Build } from "../../dev/backend.ts";
import { difference, digestFiles, signatureOf } from "../../dev/signature.ts";
import { parseConfig } from "../../packer/config.ts";

function build(config: object, packages: Build["bundle"]["packages"] = []): Build {
  const project = {
    directory: "/nowhere",
    name: "app",
    version: "1.0.0",
    entry: "app.ts",
    config: parseConfig(config, "x"),
  };
  const bundle = {
    ...{ entry: "main.mjs", files: [], packages, copied: [], assets: [], warnings: [] },
    metafile: { inputs: {}, outputs: {} },
  };
  return { project, bundle };
}

const file = (text: string) => ({
  path: "node_modules/a/a.node",
  data: Buffer.from(text),
  executable: false,
});

test.each<[string, object, string | undefined]>([
  ["nothing", {}, undefined],
  ["how ramdisks are compressed", { compression: { level: 3 } }, undefined],
  ["env", { env: { A: "1" } }, "env changed"],
  ["ports and egress", { egress: ["a.example:443"], ports: [9] }, "ports, egress changed"],
  ["memory, and with it the default of tmp", { memory: "1G" }, "memory changed"],
  ["tmp", { tmp: 8 }, "tmp changed"],
  ["a name", { cpus: 4 }, "cpus changed"],
])("a new machine for %s", (_, config, reason) => {
  expect(difference(signatureOf(build({})), signatureOf(build(config)))).toBe(reason);
});

test("a new machine for a package with a native addon, not for a file of the app", () => {
  const before = signatureOf(build({}, [file("1")]));
  expect(difference(before, signatureOf(build({}, [file("1")])))).toBeUndefined();
  expect(difference(before, signatureOf(build({}, [file("2")])))).toBe("packages with native addons changed");
  const changed = build({}, [file("1")]);
  const edited = { ...changed, bundle: { ...changed.bundle, files: [file("3")] } };
  expect(difference(before, signatureOf(edited))).toBeUndefined();
});

test("a digest tells modes and names apart", () => {
  const a = file("1");
  const digests = [[a], [{ ...a, executable: true }], [{ ...a, path: "b" }], [a, a], []].map(digestFiles);
  expect(new Set(digests).size).toBe(5);
});
