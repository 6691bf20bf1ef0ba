/**
 * What is published: packed, installed once into an empty folder, and used from there. It measures what the checkout
 * measures, its CLI runs on any Node, its types resolve; each template's tests pass; the getting-started page is true.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { TEMPLATES } from "../../create/options.ts";
import { freePort, type Installation, install, ROOT, run, SYSTEM_NODE } from "./install.ts";
import { commandsOf, Reader } from "./page.ts";

let installation: Installation;
let folder: string;
const bin = (name: string) => join(folder, "node_modules/.bin", name);

beforeAll(() => {
  installation = install();
  folder = installation.folder;
});

afterAll(() => rmSync(installation.folder, { recursive: true, force: true }));

test("holds what is needed, and is small", () => {
  const { files, size, unpackedSize } = installation.packed;
  const folders = new Set(files.map(({ path }) => path.split("/")[0]));
  expect([...folders].sort()).toEqual([
    "LICENSE",
    "README.md",
    "bin",
    "cloister.schema.json",
    "dist",
    "docs",
    "kernel",
    "package.json",
  ]);
  const sources = files.filter(({ path }) => path.endsWith(".ts") && !path.endsWith(".d.ts"));
  // The kernel's rebuild scripts are part of its source offer; nothing runs them here.
  expect(sources.filter(({ path }) => !path.startsWith("kernel/"))).toEqual([]);
  expect(size).toBeLessThan(7_000_000);
  expect(unpackedSize).toBeLessThan(14_000_000);
});

test("an image built by it is the checkout's, bit for bit", () => {
  const app = join(folder, "app");
  mkdirSync(app);
  writeFileSync(join(app, "package.json"), '{"name":"app","type":"module"}');
  writeFileSync(join(app, "app.ts"), "export default { fetch: () => new Response('ok') };");
  writeFileSync(
    join(app, "cloister.config.ts"),
    'import { defineConfig } from "cloister";\nexport default defineConfig({ memory: "256M" });',
  );
  const installed = run(app, SYSTEM_NODE, bin("cloister"), "build", "-o", "a.eif");
  expect([installed.status, installed.stderr]).toEqual([0, ""]);
  const checkout = run(app, process.execPath, join(ROOT, "bin/cloister"), "build", "-o", "b.eif");
  expect([checkout.status, checkout.stderr]).toEqual([0, ""]);
  const compared = run(app, bin("cloister"), "diff", "a.eif", "b.eif");
  expect([compared.status, compared.stdout]).toEqual([0, "equal, byte for byte\n"]);
});

test.each([SYSTEM_NODE, process.execPath])("the CLI runs on the pinned Node, called by %s", (node) => {
  const { status, stdout } = run(folder, node, bin("cloister"), "node", "--", "-p", "process.version");
  expect([status, stdout]).toEqual([0, `${process.version}\n`]);
});

test("--help takes at most 100 ms of processor time", () => {
  const told = 'process.on("exit", () => console.error(JSON.stringify(process.cpuUsage())))';
  const times = Array.from({ length: 5 }, () => {
    const hook = ["--import", `data:text/javascript,${encodeURIComponent(told)}`];
    const { stderr, stdout } = run(folder, process.execPath, ...hook, bin("cloister"), "--help");
    expect(stdout).toContain("Usage: cloister");
    const { user, system } = JSON.parse(stderr);
    return (user + system) / 1000;
  });
  expect(Math.min(...times)).toBeLessThan(100);
});

describe("its entry points", () => {
  const { exports } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  const names = Object.keys(exports)
    // Vitest is not installed here, and for projects that have it only.
    .filter((name) => name !== "./package.json" && name !== "./vitest")
    .map((name) => name.replace(/^\./, "cloister"));

  test("can be imported", () => {
    const script = names.map((name) => `await import(${JSON.stringify(name)});`).join("");
    const { status, stderr } = run(folder, process.execPath, "--input-type=module", "-e", script);
    expect([status, stderr]).toEqual([0, ""]);
  });

  test("have types", () => {
    const lines = names.map((name, index) => `import * as entry${index} from "${name}";`);
    const used = `export const all: readonly object[] = [${names.map((_, index) => `entry${index}`)}];`;
    const config = 'import { defineConfig } from "cloister"; export default defineConfig({ cpus: "two" });';
    writeFileSync(join(folder, "use.mts"), [...lines, used].join("\n"));
    writeFileSync(join(folder, "wrong.mts"), config);
    const strict = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2024", "--types", "node"];
    const right = run(folder, bin("tsc"), ...strict, "use.mts");
    expect([right.status, right.stdout]).toEqual([0, ""]);
    expect(run(folder, bin("tsc"), ...strict, "wrong.mts").stdout).toMatch(
      /'string' is not assignable to .*'number'/,
    );
  });
});

describe.each(Object.keys(TEMPLATES))("the template %s", (template) => {
  test("is created, its types hold and its tests pass", () => {
    const words = [template, "--template", template, "--no-install"];
    const created = run(folder, SYSTEM_NODE, bin("create-cloister"), ...words);
    expect([created.status, created.stderr]).toEqual([0, ""]);
    const project = join(folder, template);
    const checked = run(project, "npm", "run", "--silent", "check");
    expect([checked.status, checked.stdout]).toEqual([0, ""]);
    const tested = run(project, "npm", "test", "--silent");
    expect(tested.stdout).toMatch(/pass [1-9]/);
    expect(tested.status).toBe(0);
  });
});

describe("docs/getting-started.md", () => {
  let reader: Reader | undefined;
  afterAll(() => reader?.stop());

  test("every command does what the page says", async () => {
    reader = new Reader(folder, bin("create-cloister"), await freePort());
    const outputs = new Map<string, string>();
    for (const command of commandsOf(readFileSync(join(ROOT, "docs/getting-started.md"), "utf8"))) {
      const { status, stdout, stderr } = await reader.type(command);
      const expected = command.includes(" diff ") ? 1 : 0;
      expect([command, status, stderr]).toEqual([command, expected, expect.anything()]);
      const name = command.split(" ").slice(0, 3).join(" ");
      outputs.set(name, (outputs.get(name) ?? "") + stdout);
    }
    expect(outputs.get("curl http://127.0.0.1:8080/")).toBe(
      ["an", "my", "my"].map((whose) => JSON.stringify({ hello: `from ${whose} enclave` })).join(""),
    );
    expect(outputs.get("npm test")).toMatch(/pass 3/);
    expect(outputs.get("curl --data psst")).toBe("PSST");
    expect(outputs.get("npx cloister attest")).toMatch(/\nverified; not checked: .*\n$/);
    const diff = outputs.get("npx cloister diff");
    expect(diff).toMatch(/PCR0 {2}differs[\s\S]*PCR1 {2}equal[\s\S]*PCR2 {2}differs/);
    expect(diff).toMatch(/~ app\/main\.mjs: app\.ts {2}\d+ → \d+ characters/);
    const [, enclave = ""] = /^({[\s\S]*})/m.exec(outputs.get("npx cloister inspect") ?? "") ?? [];
    expect(JSON.parse(enclave)).toMatchObject({ name: "my-app", ports: [8080] });
  });
});
