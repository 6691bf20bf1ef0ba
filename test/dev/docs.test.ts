/** docs/testing.md is true: its program runs, its differences are the code's. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { BARE_DIFFERENCES } from "../../dev/bare/index.ts";
import { makeProject } from "./app.ts";

const ROOT = join(import.meta.dirname, "../..");
const page = readFileSync(join(ROOT, "docs/testing.md"), "utf8");

test("it has every difference of a bare enclave", () => {
  expect(page).toContain(BARE_DIFFERENCES.map((difference) => `- ${difference}`).join("\n"));
});

test("its first program passes, with an app that does what it says", async () => {
  const app = `export default {
    fetch: async () => new Response(String((await (await fetch("https://api.example.com/price")).json()).price)),
  };`;
  const project = makeProject({ "app.ts": app });
  onTestFinished(() => project[Symbol.dispose]());
  const [, program = ""] = /```ts\n([\s\S]*?)```/.exec(page) ?? [];
  const path = join(project.directory, "page.mts");
  // The checkout in place of the package, and the runner's test as a promise.
  const body = program
    .replace('"cloister/emulator"', JSON.stringify(join(ROOT, "dev/emulator.ts")))
    .replace('"cloister/verify"', JSON.stringify(join(ROOT, "format/verify.ts")))
    .replace('import { test } from "node:test";', "")
    .replace(/^test\("[^"]+", async/m, "export const run = (async");
  writeFileSync(path, body);
  const { run } = (await import(path)) as { readonly run: () => Promise<void> };
  await run();
});
