/** What is to be packed: a directory with its `cloister.config.*`, its package.json and its entry module. */
import { existsSync, readFileSync, realpathSync, statSync } from "node:fs";
import { extname, join, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { build, type Plugin } from "esbuild";
import { CloisterError } from "../format/errors.ts";
import { REQUIRE_BANNER } from "./bundle.ts";
import { type CloisterConfig, type Config, parseConfig } from "./config.ts";
import { CONFIG_FILES, ENTRY_FILES } from "./convention.ts";
import { explainFailure } from "./failure.ts";

export interface Project {
  /** Absolute, symbolic links resolved. */
  readonly directory: string;
  readonly name: string;
  /** package.json's version, or 0.0.0. */
  readonly version: string;
  /** Relative to `directory`, with forward slashes. */
  readonly entry: string;
  readonly config: Config;
}

export interface ProjectOptions {
  readonly directory: string;
  /** Relative to the working directory of the caller's choice: resolved against `directory`. */
  readonly entry?: string;
  /** Fields that win over the configuration file's. */
  readonly overrides?: CloisterConfig;
  /** Hears of each module that the configuration file is made of, also of one that is refused: absolute paths. */
  readonly onInput?: (path: string) => void;
}

/**
 * Read the project in `directory`. Throws E_CONFIG for a configuration that is wrong or cannot be read, E_ENTRY when
 * there is no entry module.
 */
export async function loadProject(options: ProjectOptions): Promise<Project> {
  const directory = existingDirectory(options.directory);
  const config = await loadConfig(directory, options.overrides, options.onInput);
  const { name, version } = readPackage(directory);
  return {
    directory,
    name: config.name ?? defaultName(name ?? ""),
    version,
    entry: findEntry(directory, options.entry ?? config.entry),
    config,
  };
}

/**
 * The configuration of `directory`, with `overrides` on top and defaults below; no file is an empty configuration.
 * Throws E_CONFIG.
 */
export async function loadConfig(
  directory: string,
  overrides: CloisterConfig = {},
  onInput?: (path: string) => void,
): Promise<Config> {
  const found = CONFIG_FILES.filter((file) => existsSync(join(directory, file)));
  const [file, second] = found;
  if (file !== undefined && second !== undefined) {
    throw new CloisterError("E_CONFIG", `${directory}: got ${file} and ${second}, expected one of them`);
  }
  const value = file === undefined ? {} : await evaluate(directory, file, onInput);
  // The file is checked by itself first, so that a message never blames it for an override.
  parseConfig(value, file ?? CONFIG_FILES[0] ?? "");
  return parseConfig({ ...(value as CloisterConfig), ...overrides }, "options");
}

/** The default export of a configuration file. */
async function evaluate(directory: string, file: string, onInput?: (path: string) => void): Promise<unknown> {
  const path = join(directory, file);
  if (extname(file) === ".json") return parseJson(readFileSync(path, "utf8"), file);
  const code = await bundleConfig(directory, file, onInput);
  let module: { readonly default?: unknown };
  try {
    module = await import(`data:text/javascript;base64,${Buffer.from(code).toString("base64")}`);
  } catch (error) {
    const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    throw new CloisterError("E_CONFIG", `${file}: got ${message}, expected a module that can be imported`, {
      cause: error,
    });
  }
  if ("default" in module) return module.default;
  throw new CloisterError("E_CONFIG", `${file}: found no default export, expected defineConfig({ … })`);
}

/**
 * One module without imports: Node strips no types below node_modules and knows no tsconfig paths, and the package
 * `cloister` may be a global one that the project cannot resolve.
 */
async function bundleConfig(
  directory: string,
  file: string,
  onInput: (path: string) => void = () => {},
): Promise<Uint8Array> {
  const url = pathToFileURL(join(directory, file)).href;
  try {
    const { outputFiles } = await build({
      absWorkingDir: directory,
      entryPoints: [file],
      bundle: true,
      write: false,
      format: "esm",
      platform: "node",
      target: "esnext",
      logLevel: "silent",
      plugins: [ownPackage, inputs(onInput)],
      define: {
        "import.meta.url": JSON.stringify(url),
        "import.meta.dirname": JSON.stringify(directory),
        "import.meta.filename": JSON.stringify(join(directory, file)),
      },
      banner: { js: REQUIRE_BANNER.replace("import.meta.url", JSON.stringify(url)) },
    });
    return outputFiles[0]?.contents ?? new Uint8Array();
  } catch (error) {
    throw await explainFailure(error);
  }
}

const ownPackage: Plugin = {
  name: "cloister",
  setup({ onResolve }) {
    const path = join(import.meta.dirname, `config${extname(import.meta.filename)}`);
    onResolve({ filter: /^cloister$/ }, () => ({ path }));
  },
};

/** By the loads, of which a build that fails has told some too, and has no metafile. */
function inputs(onInput: (path: string) => void): Plugin {
  return {
    name: "inputs",
    setup({ onLoad }) {
      onLoad({ filter: /.*/, namespace: "file" }, ({ path }) => {
        onInput(path);
        return undefined;
      });
    },
  };
}

function existingDirectory(directory: string): string {
  const path = resolve(directory);
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() === true) return realpathSync(path);
  throw new CloisterError("E_ENTRY", `${directory}: found no directory, expected the app's`);
}

function findEntry(directory: string, named: string | undefined): string {
  const candidates = named === undefined ? ENTRY_FILES : [named];
  const found = candidates.find((file) =>
    statSync(resolve(directory, file), { throwIfNoEntry: false })?.isFile(),
  );
  if (found !== undefined) return relative(directory, realpathSync(resolve(directory, found)));
  if (named !== undefined) {
    throw new CloisterError("E_ENTRY", `${named}: found no file in ${directory}, expected the app's module`);
  }
  throw new CloisterError(
    "E_ENTRY",
    `${directory}: found no entry module, expected one of app.ts, src/app.ts, …`,
    {
      details: `Looked for: ${ENTRY_FILES.join(", ")}`,
    },
  );
}

function readPackage(directory: string): { readonly name: string | undefined; readonly version: string } {
  const path = join(directory, "package.json");
  if (!existsSync(path)) return { name: undefined, version: "0.0.0" };
  const manifest = parseJson(readFileSync(path, "utf8"), "package.json");
  const { name, version } = Object(manifest) as { readonly name?: unknown; readonly version?: unknown };
  return {
    name: typeof name === "string" ? name : undefined,
    version: typeof version === "string" ? version : "0.0.0",
  };
}

/** A package's name as an enclave's: without scope and what a name may not hold. The folder's name would be measured. */
function defaultName(name: string): string {
  const bare = name.replace(/^@[^/]*\//, "").replace(/[^A-Za-z0-9._-]+/g, "-");
  return bare.replace(/^[^A-Za-z0-9]+/, "").slice(0, 64) || "app";
}

function parseJson(text: string, file: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new CloisterError("E_CONFIG", `${file}: got ${(error as Error).message}, expected JSON`);
  }
}
