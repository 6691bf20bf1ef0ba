/** The app as one ES module with its source map, beside the files and packages that cannot be part of it. */
import { isBuiltin } from "node:module";
import { relative } from "node:path";
import { type BuildResult, build, type Loader, type Message, type Metafile, type Plugin } from "esbuild";
import { isNative } from "./addon.ts";
import { Assets, assetPlugin } from "./asset.ts";
import { explainFailure, packageName } from "./failure.ts";
import { findPackage, type Package } from "./package.ts";
import type { Project } from "./project.ts";
import { scanModules } from "./scan.ts";
import { type CopiedPackage, copyPackages } from "./tree.ts";

/** A file of the app, `path` relative to /app with forward slashes. */
export interface AppFile {
  readonly path: string;
  readonly data: Uint8Array;
  readonly executable: boolean;
}

export interface Bundle {
  /** Path of the entry module among `files`. */
  readonly entry: string;
  readonly files: readonly AppFile[];
  /** What lies below node_modules: packages that are copied whole. */
  readonly packages: readonly AppFile[];
  /** The same files, by package. */
  readonly copied: readonly CopiedPackage[];
  /** esbuild's account of the modules: paths relative to the project. */
  readonly metafile: Metafile;
  /** Absolute paths of files that lie beside the modules as they are. */
  readonly assets: readonly string[];
  /** What the bundler finds odd in the app's own modules: `app.ts:3: …`. */
  readonly warnings: readonly string[];
}

/** The entry module's name without extension. All modules lie side by side in /app, so that `./x` is one place. */
const MAIN = "main";
/** Imports that init resolves in the enclave. */
const RUNTIME = "cloister/runtime";

/**
 * CommonJS packages call `require` for Node's own modules and for what they look for at run time; esbuild keeps its
 * hands off that name in ES modules, so the banner can have it.
 */
export const REQUIRE_BANNER =
  'import { createRequire as __cloisterCreateRequire } from "node:module";' +
  "const require = __cloisterCreateRequire(import.meta.url);";

/** Extensions that esbuild does not know by itself, and how an import of them is taken. */
export const LOADERS: Readonly<Record<string, Loader>> = {
  ...Object.fromEntries([".html", ".md", ".sql", ".graphql", ".pem", ".crt"].map((name) => [name, "text"])),
  ...Object.fromEntries([".bin", ".der", ".wasm"].map((name) => [name, "binary"])),
  ...Object.fromEntries(
    [".png", ".jpg", ".jpeg", ".gif", ".svg", ".ico", ".webp", ".woff2"].map((name) => [name, "file"]),
  ),
};

/**
 * Bundle the project's entry module. The result depends on the contents of its files and on their paths relative to
 * the project, on nothing else of the machine. Throws E_BUNDLE, E_PACKAGE, E_LOADER, E_ADDON or E_DECORATOR_METADATA.
 */
export async function bundleApp(project: Project): Promise<Bundle> {
  const whole = new Map<string, Package>();
  const urlModules = new Set<string>();
  const workers = new Map<string, string>();
  // Each round may reveal a module that needs a second look, or a worker that is bundled itself: until none does.
  for (;;) {
    const assets = new Assets(project.directory);
    const found = new Map<string, Package>();
    const result = await runEsbuild(project, workers, [
      packagePlugin(whole, found),
      assetPlugin(assets, urlModules),
    ]);
    const findings = scanModules(project.directory, result.metafile);
    const known = whole.size + urlModules.size + workers.size;
    for (const reader of findings.selfReaders) whole.set(reader.directory, reader);
    for (const module of findings.urlModules) urlModules.add(module);
    for (const [name, file] of assets.workers) workers.set(name, file);
    if (whole.size + urlModules.size + workers.size > known) continue;
    const outputs = result.outputFiles.map(({ path, contents }) => ({
      path: relative(project.directory, path),
      data: contents,
      executable: false,
    }));
    const copied = copyPackages(found.values());
    return {
      entry: `${MAIN}.mjs`,
      files: [...outputs, ...assets.files()],
      packages: copied.flatMap(({ files }) => files),
      copied,
      metafile: result.metafile,
      assets: assets.sources(),
      warnings: result.warnings.flatMap(ownWarning),
    };
  }
}

/** What is odd in others' packages is not for the app's author to mend. */
function ownWarning({ text, location }: Message): string[] {
  const isOwn = location !== null && !location.file.includes("node_modules/");
  return isOwn ? [`${location.file}:${location.line}: ${text}`] : [];
}

type Result = BuildResult<{ metafile: true; write: false }>;

async function runEsbuild(
  project: Project,
  workers: ReadonlyMap<string, string>,
  plugins: Plugin[],
): Promise<Result> {
  const entries = [...workers].map(([out, file]) => ({ in: file, out }));
  try {
    return await build({
      absWorkingDir: project.directory,
      entryPoints: [{ in: `./${project.entry}`, out: MAIN }, ...entries],
      // Nothing is written here; map paths are relative to it, so that frames read /app/app.ts:3:7.
      outdir: project.directory,
      outExtension: { ".js": ".mjs" },
      assetNames: "assets/[name]-[hash]",
      bundle: true,
      write: false,
      metafile: true,
      format: "esm",
      platform: "node",
      target: "esnext",
      charset: "utf8",
      minifySyntax: true,
      minifyWhitespace: true,
      sourcemap: "linked",
      // Frames need names and lines only. The sources would double the map, with all their comments, for the parent to read.
      sourcesContent: false,
      banner: { js: REQUIRE_BANNER },
      define: { __dirname: "import.meta.dirname", __filename: "import.meta.filename" },
      loader: LOADERS,
      logLevel: "silent",
      plugins,
    });
  } catch (error) {
    throw await explainFailure(error);
  }
}

/** Leaves to Node what is resolved in the enclave, and notes in `found` the packages that are copied for it. */
function packagePlugin(whole: ReadonlyMap<string, Package>, found: Map<string, Package>): Plugin {
  return {
    name: "packages",
    setup({ onResolve }) {
      onResolve({ filter: /^[^./]/ }, ({ path, kind, resolveDir }) => {
        if (kind === "entry-point") return undefined;
        if (path === RUNTIME || isBuiltin(path)) return { path, external: true };
        if (path.startsWith("node:")) return { errors: [{ text: `Could not resolve "${path}"` }] };
        const imported = findPackage(packageName(path), resolveDir);
        if (imported === undefined) return undefined;
        if (!whole.has(imported.directory) && !isNative(imported)) return undefined;
        found.set(imported.directory, imported);
        return { path, external: true };
      });
    },
  };
}
