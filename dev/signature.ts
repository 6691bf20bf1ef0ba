/** What of a build only a new machine can take over: the measured configuration, and packages that are copied whole. */
import { createHash } from "node:crypto";
import { readAuthorities } from "../packer/authority.ts";
import type { AppFile } from "../packer/bundle.ts";
import type { Build } from "./backend.ts";

/** By the name that a person knows it by; JSON text or a digest. */
export type Signature = Readonly<Record<string, string>>;

const PACKAGES = "packages with native addons";

/** Throws E_CONFIG for an authority that cannot be read. */
export function signatureOf({ project, bundle }: Build): Signature {
  const { compression: _, entry: _entry, ...config } = project.config;
  const fields = { ...config, name: project.name, ca: readAuthorities(project) };
  return {
    ...Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, JSON.stringify(value)])),
    [PACKAGES]: digestFiles(bundle.packages),
  };
}

/** What differs, as words; undefined if nothing does. */
export function difference(before: Signature, after: Signature): string | undefined {
  const names = Object.keys({ ...before, ...after }).filter((name) => before[name] !== after[name]);
  if (names.length === 0) return undefined;
  // The default of tmp follows memory.
  const told = names.includes("memoryMiB") ? names.filter((name) => name !== "tmpMiB") : names;
  return `${told.map((name) => name.replace(/MiB$/, "")).join(", ")} changed`;
}

/** SHA-256 of one file's bytes and mode, hexadecimal. */
export function digestFile({ data, executable }: AppFile): string {
  return createHash("sha256").update(`${executable}\n`).update(data).digest("hex");
}

export function digestFiles(files: readonly AppFile[]): string {
  const hash = createHash("sha256");
  for (const file of files) hash.update(`${file.path}\n${digestFile(file)}\n`);
  return hash.digest("hex");
}
