/** Who imports whom, by esbuild's metafile: why a module is in the bundle. */
import type { Metafile } from "esbuild";

/** The shortest way from an entry module to each module, as paths of the metafile, both ends included. */
export class ImportGraph {
  readonly #metafile: Metafile;
  /** Module → who imported it first, breadth first; undefined for an entry. */
  readonly #importers = new Map<string, string | undefined>();

  /** Ways that pass preferred modules only win over shorter ones. */
  constructor(metafile: Metafile, isPreferred: (module: string) => boolean) {
    this.#metafile = metafile;
    const entries = Object.values(metafile.outputs).flatMap(({ entryPoint }) => entryPoint ?? []);
    for (const entry of entries) this.#importers.set(entry, undefined);
    this.#spread(isPreferred);
    this.#spread(() => true);
  }

  #spread(mayPass: (module: string) => boolean): void {
    // A Map's iterator goes on over what is set meanwhile: it is the queue.
    for (const [module] of this.#importers) {
      for (const path of this.imports(module)) {
        if (!this.#importers.has(path) && mayPass(path)) this.#importers.set(path, module);
      }
    }
  }

  /** Modules that this one imports and that are in the bundle's graph. */
  imports(module: string): string[] {
    const { inputs } = this.#metafile;
    return (inputs[module]?.imports ?? []).flatMap(({ path, external }) => (external ? [] : [path]));
  }

  /** What this module imports and is left to Node: its own modules, packages that are copied whole. */
  externals(module: string): string[] {
    const { inputs } = this.#metafile;
    return (inputs[module]?.imports ?? []).flatMap(({ path, external }) => (external ? [path] : []));
  }

  /** Modules in the order of their distance from the entries. */
  get modules(): string[] {
    return [...this.#importers.keys()];
  }

  chain(module: string): string[] {
    const chain: string[] = [];
    for (let at: string | undefined = module; at !== undefined; at = this.#importers.get(at))
      chain.unshift(at);
    return chain;
  }
}
