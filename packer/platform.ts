/** What every enclave has below its app: the kernel, Debian's libraries, Node, and our own programs. */
import { type Component, npmComponent, packageUrl } from "./component.ts";
import type { Lockfiles } from "./lock.ts";
import { findPackage } from "./package.ts";
import { PROGRAM_PACKAGES } from "./program.ts";
import { type DebianPackage, NODE, type Release } from "./release.ts";

/** By source package, as kernel/LICENSES.md has them. */
const LICENSES: Readonly<Record<string, string>> = {
  glibc: "LGPL-2.1-or-later",
  "gcc-12": "GPL-3.0-or-later WITH GCC-exception-3.1",
  "linux-6.12": "GPL-2.0-only WITH Linux-syscall-note",
};

/** What Node is built from, by the key of `process.versions`: license, and vendor and product of its CPE. */
const NODE_PARTS = {
  ada: ["ada-url", "MIT OR Apache-2.0", undefined],
  ares: ["c-ares", "MIT", "c-ares:c-ares"],
  brotli: ["brotli", "MIT", "google:brotli"],
  icu: ["icu", "Unicode-3.0", "icu-project:international_components_for_unicode"],
  llhttp: ["llhttp", "MIT", "nodejs:llhttp"],
  nghttp2: ["nghttp2", "MIT", "nghttp2:nghttp2"],
  openssl: ["openssl", "Apache-2.0", "openssl:openssl"],
  simdjson: ["simdjson", "Apache-2.0", undefined],
  sqlite: ["sqlite", "blessing", "sqlite:sqlite"],
  undici: ["undici", "MIT", "nodejs:undici"],
  uv: ["libuv", "MIT", "libuv:libuv"],
  v8: ["v8", "BSD-3-Clause", undefined],
  zlib: ["zlib", "Zlib", undefined],
  zstd: ["zstd", "BSD-3-Clause", "facebook:zstandard"],
} as const;

/** In the order in which they start. Node's parts are known where the pinned Node runs this, as `bin/cloister` sees to. */
export function platformComponents(release: Release, lockfiles: Lockfiles): Component[] {
  const cloister: Component = {
    name: "cloister",
    version: release.version,
    license: "Apache-2.0",
    purl: packageUrl("npm", "cloister", release.version),
    digests: [],
  };
  const bundled = PROGRAM_PACKAGES.flatMap((name) => {
    const found = findPackage(name, release.directory);
    return found === undefined ? [] : [npmComponent(found, lockfiles)];
  });
  return [
    linux(release),
    ...release.libraryPackages.map(debianComponent),
    nodeComponent(),
    ...nodeParts(process.versions),
    cloister,
    ...bundled,
  ];
}

/** Its name is the upstream one, by which its weaknesses are known. */
function linux({ kernelSource }: Release): Component {
  const version = kernelSource.version.replace(/-[^-]*$/, "");
  return {
    ...debianComponent(kernelSource),
    name: "linux",
    version,
    cpe: cpe("o", "linux:linux_kernel", version),
  };
}

function debianComponent({ package: name, version, sourcePackage, sha256 }: DebianPackage): Component {
  return {
    name,
    version,
    license: LICENSES[sourcePackage],
    purl: `${packageUrl("deb", `debian/${name}`, version)}?arch=amd64&distro=debian-12`,
    digests: [{ algorithm: "SHA-256", value: sha256 }],
  };
}

/** The digest is that of its executable, before it is stripped. */
function nodeComponent(): Component {
  return {
    name: "node",
    version: NODE.version,
    license: "MIT",
    purl: packageUrl("npm", NODE.package, NODE.version),
    cpe: cpe("a", "nodejs:node.js", NODE.version),
    digests: [{ algorithm: "SHA-256", value: NODE.sha256 }],
  };
}

function nodeParts(versions: Readonly<Record<string, string | undefined>>): Component[] {
  if (versions.node !== NODE.version) return [];
  return Object.entries(NODE_PARTS).flatMap(([key, [name, license, product]]) => {
    const version = versions[key];
    if (!version) return [];
    const named = product === undefined ? {} : { cpe: cpe("a", product, version) };
    return [{ name, version, license, purl: packageUrl("generic", name, version), ...named, digests: [] }];
  });
}

/** NISTIR 7695 §6.2: a formatted string of version 2.3; eight attributes of no matter. */
function cpe(part: "a" | "o", product: string, version: string): string {
  return `cpe:2.3:${part}:${product}:${version}${":*".repeat(7)}`;
}
