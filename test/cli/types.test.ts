/** `cloister types`: what it writes is what TypeScript then believes; `--check` tells what is out of date. */
import { spawnSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import { folder } from "../packer/folder.ts";
import { call } from "./image.ts";

const CONFIG = `export default { env: { LOG_LEVEL: "info", _2: "", TZ: "UTC" } };`;

/** tsc's complaints, without the folder. */
function compile(directory: string): string {
  const { stdout } = spawnSync(resolve("node_modules/.bin/tsc"), ["-p", directory], { encoding: "utf8" });
  return stdout;
}

test("declares the environment and what imports of files give", async () => {
  const directory = folder({
    "cloister.config.ts": CONFIG,
    "tsconfig.json": JSON.stringify({
      compilerOptions: {
        target: "es2024",
        lib: ["es2024"],
        module: "nodenext",
        strict: true,
        noEmit: true,
        noPropertyAccessFromIndexSignature: true,
        types: ["node"],
        typeRoots: [resolve("node_modules/@types")],
      },
    }),
    "package.json": '{"type":"module"}',
    "app.ts": `
      import query from "./query.sql";
      import logo from "./logo.png";
      import key from "./key.der";
      const texts: string[] = [query, logo, process.env.LOG_LEVEL, process.env._2, process.env.TZ ?? ""];
      const bytes: Uint8Array = key;
      export default [texts, bytes];
    `,
  });
  expect(compile(directory)).toMatch(/query\.sql|LOG_LEVEL/);
  const { status, stdout } = await call(["types"], false, directory);
  expect([status, stdout]).toEqual([0, "cloister-env.d.ts: written\n"]);
  expect(compile(directory)).toBe("");
  // As @types/node 20 to 24 declare it.
  expect(readFileSync(join(directory, "cloister-env.d.ts"), "utf8")).toContain("TZ?: string | undefined;");
});

test("is written when it is not current, and --check writes nothing", async () => {
  const directory = folder({ "cloister.config.ts": CONFIG });
  const path = join(directory, "cloister-env.d.ts");
  const types = (...words: string[]) => call(["types", ...words], false, directory);
  expect(await types("--check", "--json")).toMatchObject({
    status: 1,
    stdout: expect.stringContaining('"Code":"E_TYPES"'),
    stderr: expect.stringContaining("cloister-env.d.ts: got no such file, expected"),
  });
  expect(JSON.parse((await types("--json")).stdout)).toEqual({ Path: path, Changed: true });
  expect(await types()).toMatchObject({ status: 0, stdout: "cloister-env.d.ts: up to date\n" });
  expect((await types("--check")).status).toBe(0);
  const text = readFileSync(path, "utf8");
  expect((await call(["types", "--project", directory, "--check"])).status).toBe(0);
  rmSync(join(directory, "cloister.config.ts"));
  expect((await types("--check")).stderr).toContain("got another text");
  expect(readFileSync(path, "utf8")).toBe(text);
});

test("a place that cannot be written to is told", async () => {
  const directory = folder({ "cloister.config.ts": CONFIG, "cloister-env.d.ts/x": "" });
  expect(await call(["types"], false, directory)).toMatchObject({
    status: 1,
    stderr: expect.stringContaining("E_WRITE"),
  });
});
