/** The import table of ARCHITECTURE.md, enforced: each folder imports what its row allows and nothing else. */
import { globSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { describe, expect, test } from "vitest";

interface Rule {
  /** Folders of ours, or single files of them. */
  readonly ours: readonly string[];
  readonly node: boolean;
  readonly packages: readonly string[];
}

const RULES: Readonly<Record<string, Rule>> = {
  format: { ours: [], node: false, packages: ["@noble/hashes", "hpke"] },
  linux: { ours: ["format"], node: true, packages: [] },
  init: { ours: ["linux", "format", "runtime"], node: true, packages: [] },
  runtime: { ours: ["linux", "format"], node: true, packages: [] },
  client: { ours: ["format"], node: false, packages: [] },
  "client/node": { ours: ["client", "format"], node: true, packages: [] },
  packer: { ours: ["format"], node: true, packages: ["esbuild"] },
  launcher: { ours: ["linux", "format"], node: true, packages: [] },
  emulator: { ours: ["linux", "format", "launcher/device.ts"], node: true, packages: [] },
  dev: {
    ours: ["format", "linux", "init", "runtime", "client", "packer", "launcher", "emulator"],
    node: true,
    packages: ["esbuild", "vitest"],
  },
  cli: {
    ours: ["format", "linux", "runtime", "client", "packer", "launcher", "emulator", "dev"],
    node: true,
    packages: [],
  },
};

/** Module specifiers of static imports, re-exports and `import()` in TypeScript source. */
function specifiers(source: string): string[] {
  const pattern = /(?:^|[\s;}])(?:from|import)\s*\(?\s*"([^"]+)"/g;
  return [...source.matchAll(pattern)].flatMap(([, specifier]) => specifier ?? []);
}

function violation(folder: string, rule: Rule, file: string, specifier: string): string | undefined {
  const place = `${file} imports "${specifier}"`;
  if (specifier === "node:ffi" && file !== "linux/ffi.ts") return `${place}: only linux/ffi.ts may`;
  if (specifier.startsWith("node:"))
    return rule.node ? undefined : `${place}: ${folder}/ runs in browsers too`;
  if (!specifier.startsWith(".")) {
    return rule.packages.some((name) => specifier === name || specifier.startsWith(`${name}/`))
      ? undefined
      : `${place}: not among its packages (${rule.packages.join(", ") || "none"})`;
  }
  const target = normalize(join(dirname(file), specifier));
  const inner = isBelowAnother(folder, target);
  const allowed =
    !inner && [folder, ...rule.ours].some((own) => target === own || target.startsWith(`${own}/`));
  return allowed ? undefined : `${place}: ${folder}/ may import ${rule.ours.join(", ") || "nothing of ours"}`;
}

function isBelowAnother(folder: string, file: string): boolean {
  return Object.keys(RULES).some((row) => row.startsWith(`${folder}/`) && file.startsWith(`${row}/`));
}

describe.each(Object.entries(RULES))("%s/", (folder, rule) => {
  // A folder with a row of its own is not part of the one that it lies in.
  const files = globSync(`${folder}/**/*.ts`).filter((file) => !isBelowAnother(folder, file));

  test("has files", () => expect(files.length).toBeGreaterThan(0));

  test("imports only what its row allows", () => {
    const violations = files.flatMap((file) =>
      specifiers(readFileSync(file, "utf8")).flatMap((name) => violation(folder, rule, file, name) ?? []),
    );
    expect(violations).toEqual([]);
  });
});

test("the rules see every way to import", () => {
  const source = `import a from "x";\nexport { b } from "y";\nimport type { C } from "z";\nawait import("w");\nimport "v";`;
  expect(specifiers(source)).toEqual(["x", "y", "z", "w", "v"]);
  const rule = { ours: ["format"], node: false, packages: [] };
  expect(violation("linux", rule, "linux/a.ts", "../packer/b.ts")).toContain("may import format");
  expect(violation("linux", rule, "linux/a.ts", "node:ffi")).toContain("only linux/ffi.ts");
  expect(violation("linux", rule, "linux/a.ts", "node:fs")).toContain("browsers");
  expect(violation("linux", rule, "linux/a.ts", "esbuild")).toContain("not among its packages");
  expect(violation("linux", rule, "linux/a.ts", "../format/b.ts")).toBeUndefined();
});
