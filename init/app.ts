/** The app: its measured configuration, its surroundings, and its import into this process. */
import { registerHooks } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { type EnclaveJson, RUNTIME_SYMBOL } from "../format/enclave.ts";
import * as runtime from "../runtime/index.ts";
import type { Machine } from "./machine.ts";

/** Environment, working directory and arguments, as if a shell had started `node entry` in the app's directory. */
export function prepareProcess({ env, entry }: EnclaveJson, { directory, environment }: Machine): void {
  // The kernel's: HOME, TERM, and every word of the cmdline that it did not know.
  for (const name of Object.keys(process.env)) delete process.env[name];
  Object.assign(process.env, environment, env);
  process.chdir(directory);
  process.argv = [process.execPath, join(directory, entry)];
  // Stack traces name the lines of the app's own files.
  process.setSourceMapsEnabled(true);
}

const RUNTIME_SPECIFIER = "cloister/runtime";
const RUNTIME_URL = "cloister:runtime";

/** Answer the app's `cloister/runtime` with the instance in this bundle. */
export function provideRuntime(): void {
  Object.defineProperty(globalThis, Symbol.for(RUNTIME_SYMBOL), { value: runtime });
  const names = Object.keys(runtime).join(", ");
  const source = `export const { ${names} } = globalThis[Symbol.for(${JSON.stringify(RUNTIME_SYMBOL)})];`;
  registerHooks({
    resolve: (specifier, context, next) =>
      specifier === RUNTIME_SPECIFIER
        ? { url: RUNTIME_URL, format: "module", shortCircuit: true }
        : next(specifier, context),
    load: (url, context, next) =>
      url === RUNTIME_URL ? { format: "module", source, shortCircuit: true } : next(url, context),
  });
}

/** Evaluate the entry module; its default export. Rejects with whatever it throws. */
export async function importApp({ entry }: EnclaveJson, { directory }: Machine): Promise<unknown> {
  const module = (await import(pathToFileURL(join(directory, entry)).href)) as { default?: unknown };
  return module.default;
}
