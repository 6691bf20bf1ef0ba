/**
 * Packages that no bundler can put into one file (native addons, files read beside the code), with all they depend
 * on, laid out as a node_modules folder for the enclave's platform.
 */
import { CloisterError } from "../format/errors.ts";
import { packageFiles } from "./addon.ts";
import type { AppFile } from "./bundle.ts";
import { dependencyNames, findPackage, isForTarget, type Package } from "./package.ts";

/** A package that is copied, in one place. */
export interface CopiedPackage {
  readonly found: Package;
  /** Relative to /app. */
  readonly path: string;
  /** Whose dependency brought it; undefined: the app's modules import it. */
  readonly dependent: Package | undefined;
  readonly files: readonly AppFile[];
}

interface Placed extends Omit<CopiedPackage, "files"> {
  /** Whose node_modules it lies in; undefined at the top. */
  readonly parent: Placed | undefined;
}

/**
 * These packages and their dependencies, with the files that the enclave needs. Throws E_ADDON when one has no addon for the enclave's
 * platform, or when two versions of one are imported.
 */
export function copyPackages(roots: Iterable<Package>): CopiedPackage[] {
  const placed = new Map<string, Placed>();
  // The app itself imports these, so the top is theirs before any dependency comes.
  const tops = [...roots].sort(byName).flatMap((root) => placeRoot(placed, root) ?? []);
  for (const top of tops) addDependencies(placed, top);
  return [...placed.values()].map(({ found, path, dependent }) => {
    return { found, path, dependent, files: packageFiles(found, path) };
  });
}

function byName(a: Package, b: Package): number {
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0;
}

function placeRoot(placed: Map<string, Placed>, root: Package): Placed | undefined {
  const taken = placed.get(`node_modules/${root.name}`)?.found;
  if (taken === undefined || taken.directory === root.directory)
    return place(placed, root, undefined, undefined);
  throw new CloisterError(
    "E_ADDON",
    `package "${root.name}": got versions ${taken.version} and ${root.version}, expected one`,
    { fix: `Run \`npm dedupe ${root.name}\`, or pin one version with "overrides" in package.json.` },
  );
}

/**
 * All direct dependencies are placed before any of theirs: what lands later in a node_modules folder between a package
 * and the top would hide from it what it had found there.
 */
function addDependencies(placed: Map<string, Placed>, parent: Placed): void {
  const { dependencies, optionalDependencies, peerDependencies } = parent.found.manifest;
  const names = [dependencies, optionalDependencies, peerDependencies].flatMap(dependencyNames);
  const added = [...new Set(names)].sort().flatMap((name) => {
    const dependency = findPackage(name, parent.found.directory);
    // Absent: an optional or peer dependency that nobody installed. npm itself complains about others.
    return dependency !== undefined && isForTarget(dependency)
      ? (place(placed, dependency, parent, parent.found) ?? [])
      : [];
  });
  for (const dependency of added) addDependencies(placed, dependency);
}

/** At the top, or in its parent's node_modules where another version has the name; undefined if it is there already. */
function place(
  placed: Map<string, Placed>,
  found: Package,
  parent: Placed | undefined,
  dependent: Package | undefined,
): Placed | undefined {
  const there = visible(placed, found.name, parent);
  if (there?.found.directory === found.directory) return undefined;
  const nested = there !== undefined && parent !== undefined;
  const path = `${nested ? `${parent.path}/` : ""}node_modules/${found.name}`;
  const entry: Placed = { found, path, dependent, parent: nested ? parent : undefined };
  placed.set(path, entry);
  return entry;
}

/** What Node would find for `name` from a package: in its own node_modules, its parents', the top's. */
function visible(
  placed: ReadonlyMap<string, Placed>,
  name: string,
  from: Placed | undefined,
): Placed | undefined {
  for (let above = from; above !== undefined; above = above.parent) {
    const nested = placed.get(`${above.path}/node_modules/${name}`);
    if (nested !== undefined) return nested;
  }
  return placed.get(`node_modules/${name}`);
}
