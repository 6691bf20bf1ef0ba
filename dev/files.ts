/** The files that decide what is built: whose change means a new build. */
import { existsSync } from "node:fs";
import { join, resolve, sep } from "node:path";
import type { Bundle } from "../packer/bundle.ts";
import { CONFIG_FILES } from "../packer/convention.ts";
import type { Project } from "../packer/project.ts";

/** Packages change by their installer, which writes one of these last. */
const LOCKS = ["package-lock.json", "pnpm-lock.yaml", "yarn.lock", "bun.lock", "bun.lockb"];
/** Whose change means that the configuration is read again. */
const DESCRIBING = [...CONFIG_FILES, "package.json", ...LOCKS];
const PACKAGES = `${sep}node_modules${sep}`;

/** Of a project that could not be loaded, or not yet. */
export function describingFiles(directory: string): string[] {
  return DESCRIBING.map((file) => join(directory, file));
}

/** Whether its change means that the configuration is read again. `inputs`: modules that it is made of. */
export function isDescribing(directory: string, path: string, inputs: ReadonlySet<string>): boolean {
  return path === directory || inputs.has(path) || describingFiles(directory).includes(path);
}

/** Of an installed package, whose lockfile is watched. */
export function isInstalled(path: string): boolean {
  return path.includes(PACKAGES);
}

/** Everything that a bundle was made of, but for installed packages: those of a workspace lie elsewhere. */
export function sourceFiles({ directory, entry, config }: Project, bundle: Bundle | undefined): string[] {
  const inputs = Object.keys(bundle?.metafile.inputs ?? {}).map((path) => resolve(directory, path));
  const own = [...inputs, ...(bundle?.assets ?? [])].filter((path) => !isInstalled(path));
  return [
    join(directory, entry),
    join(directory, "tsconfig.json"),
    ...config.ca.map((file) => resolve(directory, file)),
    ...own.filter((path) => existsSync(path)),
  ];
}
