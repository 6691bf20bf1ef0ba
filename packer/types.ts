/** The app's surroundings as TypeScript declarations: its environment, and what imports of files give. */
import type { Loader } from "esbuild";
import { LOADERS } from "./bundle.ts";

/** What esbuild makes of an import by these loaders (esbuild.github.io/content-types). */
const VALUES: Partial<Readonly<Record<Loader, string>>> = {
  text: "string",
  binary: "Uint8Array",
  // The path of the file, relative to the bundle.
  file: "string",
};

/** Older releases of @types/node declare it, so: two declarations that differ are an error. */
const OPTIONAL = "TZ";

/** Text of `cloister-env.d.ts` for a configuration's `env`. */
export function declareEnvironment(env: Readonly<Record<string, string>>): string {
  const names = Object.keys(env).sort();
  return [
    "// Made by `cloister types` from the configuration's `env`: run it again when that changes.",
    "// A script, not a module: what it declares is global.\n",
    ...(names.length === 0 ? [] : [processEnv(names)]),
    ...Object.entries(LOADERS).flatMap(([extension, loader]) => module(extension, VALUES[loader])),
  ].join("\n");
}

function processEnv(names: readonly string[]): string {
  return [
    "declare namespace NodeJS {",
    "  interface ProcessEnv {",
    ...names.map((name) => `    ${name}${name === OPTIONAL ? "?: string | undefined" : ": string"};`),
    "  }",
    "}\n",
  ].join("\n");
}

function module(extension: string, type: string | undefined): string[] {
  if (type === undefined) return [];
  return [`declare module "*${extension}" {\n  const value: ${type};\n  export default value;\n}\n`];
}
