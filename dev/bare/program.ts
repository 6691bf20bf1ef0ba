/**
 * What a bare enclave's process and its threads run, each as one file: a start then reads one file, not fifty, which is
 * most of the time that it takes.
 */
import { extname, join } from "node:path";
import { build } from "esbuild";

export interface Programs {
  /** An ES module, to be run. */
  readonly main: Uint8Array;
  /** CommonJS, to be required. */
  readonly preload: Uint8Array;
}

let programs: Promise<Programs> | undefined;

/** The same for every bare enclave of this process. */
export function loadPrograms(): Promise<Programs> {
  programs ??= bundle();
  return programs;
}

async function bundle(): Promise<Programs> {
  const [main, preload] = await Promise.all([one("main", "esm"), one("preload", "cjs")]);
  return { main, preload };
}

async function one(name: string, format: "esm" | "cjs"): Promise<Uint8Array> {
  const { outputFiles } = await build({
    entryPoints: [join(import.meta.dirname, "guest", name + extname(import.meta.filename))],
    bundle: true,
    write: false,
    format,
    platform: "node",
    target: "esnext",
    charset: "utf8",
    logLevel: "silent",
    ...(format === "cjs" && { define: { "import.meta.dirname": "__dirname" } }),
  });
  return outputFiles[0]?.contents ?? new Uint8Array();
}
