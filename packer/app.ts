/** The ramdisks after the first, measured in PCR2: /app with its packages, its bundle and `enclave.json`. */
import { type CpioEntry, encodeCpio } from "../format/cpio.ts";
import { APP_DIRECTORY, ENCLAVE_JSON, encodeEnclaveJson } from "../format/enclave.ts";
import { concat } from "../format/struct.ts";
import { readAuthorities } from "./authority.ts";
import type { AppFile, Bundle } from "./bundle.ts";
import type { Project } from "./project.ts";

const ROOT = APP_DIRECTORY.slice(1);

/**
 * Uncompressed archives in their order in the EIF. Copied packages have one of their own: they are large, and an edit
 * of the app does not change them.
 */
export function encodeApp(project: Project, bundle: Bundle): Uint8Array[] {
  const { ports, env, egress, attestation, tls, ready, redact, tmpMiB, proxyProtocol } = project.config;
  const ca = readAuthorities(project);
  const { entry } = bundle;
  const enclave = encodeEnclaveJson({
    version: 1,
    name: project.name,
    entry,
    ports,
    env,
    egress,
    ca,
    attestation,
    tls,
    ready,
    redact,
    tmpMiB,
    proxyProtocol,
    dev: false,
  });
  const app = [
    ...bundle.files,
    { path: ENCLAVE_JSON.slice(APP_DIRECTORY.length + 1), data: enclave, executable: false },
  ];
  const archives = bundle.packages.length === 0 ? [app] : [bundle.packages, app];
  return archives.map((files) => concat(encodeCpio(entries(files))));
}

function entries(files: readonly AppFile[]): CpioEntry[] {
  const placed = files.map((file) => ({ ...file, path: `${ROOT}/${file.path}` }));
  const directories = new Set(placed.flatMap(({ path }) => parents(path)));
  return [
    ...[...directories].map((path): CpioEntry => ({ type: "directory", path, mode: 0o755 })),
    ...placed.map(({ path, data, executable }): CpioEntry => {
      return { type: "file", path, mode: executable ? 0o755 : 0o644, data };
    }),
  ];
}

/** `a/b/c` is in `a` and `a/b`. */
function parents(path: string): string[] {
  const parts = path.split("/");
  return parts.slice(1).map((_, index) => parts.slice(0, index + 1).join("/"));
}
