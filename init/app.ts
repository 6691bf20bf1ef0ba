/** The app: its measured configuration, its surroundings, and its import into this process. */
import { registerHooks } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { APP_DIRECTORY, type EnclaveJson, RUNTIME_SYMBOL } from "../format/enclave.ts";
import * as runtime from "../runtime/index.ts";
import { PRELOAD } from "../runtime/network.ts";

/**
 * What the app finds in process.env besides its own. NODE_ENV: libraries show clients their stack traces without it.
 * NODE_OPTIONS: a child process of Node has its outbound network too.
 */
const ENVIRONMENT = {
  PATH: "/bin",
  HOME: "/root",
  LANG: "C.UTF-8",
  NODE_ENV: "production",
  NODE_OPTIONS: `--require=${PRELOAD}`,
} as const;

/** Environment, working directory and arguments, as if a shell had started `node entry` in /app. */
export function prepareProcess({ env, entry }: EnclaveJson): void {
  // The kernel's: HOME, TERM, and every word of the cmdline that it did not know.
  for (const name of Object.keys(process.env)) delete process.env[name];
  Object.assign(process.env, ENVIRONMENT, env);
  process.chdir(APP_DIRECTORY);
  process.argv = [process.execPath, join(APP_DIRECTORY, entry)];
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
export async function importApp({ entry }: EnclaveJson): Promise<unknown> {
  const module = (await import(pathToFileURL(join(APP_DIRECTORY, entry)).href)) as { default?: unknown };
  return module.default;
}
