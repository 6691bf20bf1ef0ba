/** The ramdisks after the first, measured in PCR2: /app with its packages, its bundle and `enclave.json`. */
import { type CpioEntry, encodeCpio } from "../format/cpio.ts";
import { APP_DIRECTORY, ENCLAVE_JSON, encodeEnclaveJson } from "../format/enclave.ts";
import { concat } from "../format/struct.ts";
import { readAuthorities } from "./authority.ts";
import type { AppFile, Bundle } from "./bundle.ts";
import type { Program } from "./program.ts";
import type { Project } from "./project.ts";

const ROOT = APP_DIRECTORY.slice(1);

/**
 * Uncompressed archives in their order in the EIF. Copied packages have one of their own: they are large, and an edit
 * of the app does not change them. `development`: programs of an image for development, laid over those of the base.
 */
export function encodeApp(
  project: Project,
  bundle: Bundle,
  development: readonly Program[] = [],
): Uint8Array[] {
  const enclave = encodeEnclaveJson({
    ...project.config,
    version: 1,
    name: project.name,
    entry: bundle.entry,
    ca: readAuthorities(project),
    dev: development.length > 0,
  });
  const app = [
    ...bundle.files,
    { path: ENCLAVE_JSON.slice(APP_DIRECTORY.length + 1), data: enclave, executable: false },
  ];
  const archives = bundle.packages.length === 0 ? [app] : [bundle.packages, app];
  return archives.map((files) => concat(encodeCpio(entries(files, files === app ? development : []))));
}

function entries(files: readonly AppFile[], programs: readonly Program[]): CpioEntry[] {
  const placed = [
    ...files.map(({ path, data, executable }) => {
      return { path: `${ROOT}/${path}`, data, mode: executable ? 0o755 : 0o644 };
    }),
    ...programs.map(({ target, data, mode }) => ({ path: target, data, mode })),
  ];
  const directories = new Set(placed.flatMap(({ path }) => parents(path)));
  return [
    ...[...directories].map((path): CpioEntry => ({ type: "directory", path, mode: 0o755 })),
    ...placed.map((file): CpioEntry => ({ type: "file", ...file })),
  ];
}

/** `a/b/c` is in `a` and `a/b`. */
function parents(path: string): string[] {
  const parts = path.split("/");
  return parts.slice(1).map((_, index) => parts.slice(0, index + 1).join("/"));
}
