/** What is in an enclave and why: modules, packages, assets, and what every enclave has below its app. */
import { resolve } from "node:path";
import type { Bundle } from "./bundle.ts";
import { type Component, npmComponent } from "./component.ts";
import { packageName } from "./failure.ts";
import { ImportGraph } from "./graph.ts";
import { Lockfiles } from "./lock.ts";
import { type Package, packageOfFile } from "./package.ts";
import { platformComponents } from "./platform.ts";
import type { Project } from "./project.ts";
import type { Release } from "./release.ts";

export interface Report {
  readonly name: string;
  readonly version: string;
  /** Relative to the project. */
  readonly entry: string;
  /** Of the app's ramdisks before compression, bytes: bundles with their source maps, packages, assets. */
  readonly sizeBytes: number;
  /** Of the bundles alone: the app's own, and its workers'. */
  readonly bundleBytes: number;
  /** Those of which something is in a bundle, the largest first. */
  readonly modules: readonly ReportModule[];
  /** The largest first. */
  readonly packages: readonly ReportPackage[];
  readonly assets: readonly ReportAsset[];
  /** `name@version` of the packages that the app's own modules import. */
  readonly imports: readonly string[];
  /** Kernel, libraries, Node, our programs. */
  readonly platform: readonly Component[];
}

export interface ReportModule {
  /** Relative to the project. */
  readonly path: string;
  /** What of the bundles is its. */
  readonly sizeBytes: number;
  /** `name@version`; absent for the app's own. */
  readonly package?: string;
}

export interface ReportPackage extends Component {
  /** What of the app is its, before compression. Two copies of one version count as one. */
  readonly sizeBytes: number;
  /** How many of its modules, or files where it is copied. */
  readonly files: number;
  /** As a folder in node_modules: it cannot be part of a bundle. */
  readonly isCopied: boolean;
  /** The shortest way to it: a module of the app, then packages, itself last. */
  readonly why: readonly string[];
  /** `name@version` of the packages that it imports. */
  readonly imports: readonly string[];
}

export interface ReportAsset {
  /** Relative to /app. */
  readonly path: string;
  readonly sizeBytes: number;
}

/** Throws nothing of its own: a package without license or digest has none here. */
export function makeReport(project: Project, bundle: Bundle, release: Release): Report {
  const lockfiles = new Lockfiles();
  const packages = new Packages(project, bundle, lockfiles);
  const size = (files: Bundle["files"]) => files.reduce((sum, { data }) => sum + data.length, 0);
  const isAsset = ({ path }: { readonly path: string }) => path.startsWith("assets/");
  return {
    name: project.name,
    version: project.version,
    entry: project.entry,
    sizeBytes: size(bundle.files) + size(bundle.packages),
    bundleBytes: size(bundle.files.filter((file) => !isAsset(file) && file.path.endsWith(".mjs"))),
    modules: packages.modules,
    packages: packages.rows(),
    assets: bundle.files.filter(isAsset).map(({ path, data }) => ({ path, sizeBytes: data.length })),
    imports: [...packages.importsOfApp].sort(),
    platform: platformComponents(release, lockfiles),
  };
}

interface Row {
  readonly component: Component;
  readonly isCopied: boolean;
  readonly why: readonly string[];
  readonly imports: Set<string>;
  sizeBytes: number;
  files: number;
}

/** Packages by `name@version`, gathered module by module. */
class Packages {
  readonly modules: readonly ReportModule[];
  readonly importsOfApp = new Set<string>();
  readonly #rows = new Map<string, Row>();
  readonly #directory: string;
  readonly #lockfiles: Lockfiles;
  readonly #graph: ImportGraph;
  /** By module. */
  readonly #owners = new Map<string, Package | undefined>();

  constructor(project: Project, { metafile, copied }: Bundle, lockfiles: Lockfiles) {
    this.#directory = project.directory;
    this.#lockfiles = lockfiles;
    const sizes = bundledBytes(metafile.outputs);
    // A package of which nothing is left explains no other.
    const present = new Set([...sizes.keys()].map((path) => this.#owner(path)?.directory));
    this.#graph = new ImportGraph(metafile, (path) => present.has(this.#owner(path)?.directory));
    this.modules = [...sizes]
      .map(([path, sizeBytes]): ReportModule => {
        const owner = this.#owner(path);
        return { path, sizeBytes, ...(owner !== undefined && { package: idOf(owner) }) };
      })
      .sort((a, b) => b.sizeBytes - a.sizeBytes || (a.path < b.path ? -1 : 1));
    for (const path of this.#graph.modules) this.#addModule(path, sizes.get(path) ?? 0);
    this.#addCopied(copied);
    for (const path of this.#graph.modules) this.#addImports(path, copied);
  }

  /** Only what has bytes in the image. */
  rows(): ReportPackage[] {
    return [...this.#rows.values()]
      .map(({ component, imports, ...row }) => ({
        ...component,
        ...row,
        imports: [...imports].filter((id) => this.#rows.has(id)).sort(),
      }))
      .sort((a, b) => b.sizeBytes - a.sizeBytes || (a.purl < b.purl ? -1 : 1));
  }

  #addModule(path: string, sizeBytes: number): void {
    const owner = this.#owner(path);
    if (owner === undefined || sizeBytes === 0) return;
    const row = this.#row(owner, false, () => this.#why(path));
    row.sizeBytes += sizeBytes;
    row.files += 1;
  }

  #addCopied(copied: Bundle["copied"]): void {
    for (const { found, dependent, files } of copied) {
      const row = this.#row(found, true, () => {
        const above = dependent === undefined ? undefined : this.#rows.get(idOf(dependent))?.why;
        return [...(above ?? this.#whyExternal(found)), found.name];
      });
      row.sizeBytes += files.reduce((sum, { data }) => sum + data.length, 0);
      row.files += files.length;
      if (dependent !== undefined) this.#rows.get(idOf(dependent))?.imports.add(idOf(found));
    }
  }

  /** The shortest way to a module that imports this package. */
  #whyExternal({ name }: Package): readonly string[] {
    const importer = this.#graph.modules.find((module) =>
      this.#graph.externals(module).some((specifier) => packageName(specifier) === name),
    );
    return importer === undefined ? [] : this.#why(importer);
  }

  #row(found: Package, isCopied: boolean, why: () => readonly string[]): Row {
    const known = this.#rows.get(idOf(found));
    if (known !== undefined) return known;
    const component = npmComponent(found, this.#lockfiles);
    const row: Row = { component, isCopied, why: why(), imports: new Set(), sizeBytes: 0, files: 0 };
    this.#rows.set(idOf(found), row);
    return row;
  }

  #addImports(module: string, copied: Bundle["copied"]): void {
    const owner = this.#owner(module);
    const imports = owner === undefined ? this.importsOfApp : this.#rows.get(idOf(owner))?.imports;
    const external = this.#graph.externals(module).flatMap((specifier) => {
      return copied.find(({ found, dependent }) => !dependent && found.name === packageName(specifier)) ?? [];
    });
    const targets = [
      ...this.#graph.imports(module).map((path) => this.#owner(path)),
      ...external.map(({ found }) => found),
    ];
    for (const target of targets) {
      if (target === undefined || (owner !== undefined && idOf(target) === idOf(owner))) continue;
      if (this.#rows.has(idOf(target))) imports?.add(idOf(target));
    }
  }

  /** Modules of the app by their path, then packages by their name, each once for all its modules. */
  #why(module: string): string[] {
    const names = this.#graph.chain(module).map((path) => this.#owner(path)?.name ?? path);
    return names.filter((name, index) => name !== names[index - 1]);
  }

  #owner(path: string): Package | undefined {
    if (!this.#owners.has(path)) {
      // `(disabled):node_modules/…` is a module that a package replaces by nothing.
      const file = resolve(this.#directory, path.replace(/^\(\w+\):/, ""));
      this.#owners.set(path, packageOfFile(file));
    }
    return this.#owners.get(path);
  }
}

function idOf({ name, version }: Package): string {
  return `${name}@${version}`;
}

/** What of the bundles is each module's. Assets are outputs too, of one input each. */
function bundledBytes(outputs: Bundle["metafile"]["outputs"]): Map<string, number> {
  const sizes = new Map<string, number>();
  const bundles = Object.entries(outputs).filter(([path]) => path.endsWith(".mjs"));
  for (const [path, { bytesInOutput }] of bundles.flatMap(([, { inputs }]) => Object.entries(inputs))) {
    if (bytesInOutput > 0) sizes.set(path, (sizes.get(path) ?? 0) + bytesInOutput);
  }
  return sizes;
}
