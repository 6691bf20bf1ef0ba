// The steps of a rebuild: tools, packages, kernel, base. Each works in a folder it is given and returns or leaves its
// result there; what the result is compared with is rebuild.ts's business.

import { spawnSync } from "node:child_process";
import { chmodSync, copyFileSync, mkdirSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join, resolve } from "node:path";
import { type Manifest, type PackageRecord, sha256File, unmetOptions } from "./manifest.ts";

// Any version of these will do: they unpack, drive the build or generate the same text whatever their version.
const HELPERS = [
  "bc",
  "bison",
  "flex",
  "libc6-dev",
  "libelf-dev",
  "make",
  "patch",
  "perl-base",
  "tar",
  "xz-utils",
];

// All that would differ from build to build and from machine to machine, fixed.
const BUILD_ENVIRONMENT = {
  PATH: "/usr/sbin:/usr/bin:/sbin:/bin",
  LC_ALL: "C",
  TZ: "UTC",
  KBUILD_BUILD_USER: "cloister",
  KBUILD_BUILD_HOST: "cloister",
  KBUILD_BUILD_VERSION: "1",
};

function run(argv: string[], cwd: string, extraEnvironment: Record<string, string> = {}): string {
  console.error(`+ ${argv.join(" ")}`);
  const [command = "", ...args] = argv;
  const result = spawnSync(command, args, {
    cwd,
    env: { ...BUILD_ENVIRONMENT, ...extraEnvironment },
    encoding: "utf8",
    maxBuffer: 1 << 28,
    stdio: ["ignore", "pipe", "inherit"],
  });
  if (result.error) throw result.error;
  if (result.status !== 0)
    throw new Error(`${command} ended with ${result.status ?? result.signal}\n${result.stdout}`);
  return result.stdout;
}

/** The installed version of a package, or undefined. */
function installedVersion(name: string): string | undefined {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: the placeholders are dpkg-query's
  const query = spawnSync("dpkg-query", ["-W", "-f", "${db:Status-Status} ${Version}", name], {
    encoding: "utf8",
  });
  const [status, version] = query.stdout.split(" ");
  return status === "installed" ? version : undefined;
}

export function installTools(manifest: Manifest): void {
  const missing = [
    ...manifest.tools
      .filter((tool) => installedVersion(tool.package) !== tool.version)
      .map((tool) => `${tool.package}=${tool.version}`),
    ...HELPERS.filter((name) => installedVersion(name) === undefined),
  ];
  if (missing.length === 0) return;
  const argv = ["apt-get", "install", "-y", "--no-install-recommends", "--allow-downgrades", ...missing];
  if (process.getuid?.() !== 0)
    throw new Error(`not installed in the version asked for; run: ${argv.join(" ")}`);
  run(argv, "/");
}

/** The .deb of a package, fetched and verified. */
function fetchPackage(record: PackageRecord, work: string, debs?: string): string {
  const folder = join(work, "debs");
  const path = join(folder, record.file);
  mkdirSync(folder, { recursive: true });
  if (debs) copyFileSync(join(debs, record.file), path);
  // apt names the epoch's colon %3a; none of our packages has an epoch.
  else
    run(
      ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", `${record.package}=${record.version}`],
      folder,
    );
  const actual = sha256File(path);
  if (actual !== record.sha256)
    throw new Error(`${record.file}: got sha256 ${actual}, want ${record.sha256}`);
  return path;
}

function unpackPackage(deb: string, folder: string): void {
  mkdirSync(folder, { recursive: true });
  run(["dpkg-deb", "--extract", deb, folder], folder);
}

/** Builds in work/linux; leaves kernel.config and bzImage in work/result. Returns the kernel's release string. */
export function buildKernel(manifest: Manifest, archDir: string, work: string, debs?: string): string {
  const { source } = manifest.kernel;
  const unpacked = join(work, "source");
  unpackPackage(fetchPackage(source, work, debs), unpacked);
  const tarball = join(unpacked, source.tarball.member);
  const actual = sha256File(tarball);
  if (actual !== source.tarball.sha256) {
    throw new Error(`${source.tarball.member}: got sha256 ${actual}, want ${source.tarball.sha256}`);
  }
  const tree = join(work, "linux");
  mkdirSync(tree);
  run(["tar", "-xJf", tarball, "--strip-components=1", "-C", tree], work);
  for (const patch of manifest.kernel.patches) {
    run(["patch", "-p1", "--fuzz=0", "-i", resolve(archDir, patch.path)], tree);
  }
  // The compiler's name and version are part of the configuration, and so are those of a Rust compiler and of pahole,
  // which nothing here uses: the former is named with its version, the latter are hidden.
  const tools = ["CC=gcc-12", "HOSTCC=gcc-12", "RUSTC=none", "PAHOLE=none"];
  const make = ["make", `ARCH=${manifest.arch}`, ...tools, `-j${availableParallelism()}`];
  const fragment = join(archDir, manifest.kernel.fragment.path);
  run([...make, "tinyconfig"], tree);
  run(["scripts/kconfig/merge_config.sh", "-m", ".config", fragment], tree);
  run([...make, "olddefconfig"], tree);
  const unmet = unmetOptions(readFileSync(fragment, "utf8"), readFileSync(join(tree, ".config"), "utf8"));
  if (unmet.length > 0) throw new Error(`Kconfig did not take from the fragment:\n${unmet.join("\n")}`);
  // In `uname -v`, and in the mtimes of the empty initramfs that every kernel carries.
  run([...make, "bzImage"], tree, { KBUILD_BUILD_TIMESTAMP: manifest.kernel.buildTimestamp });
  mkdirSync(join(work, "result"), { recursive: true });
  copyFileSync(join(tree, ".config"), join(work, "result/kernel.config"));
  copyFileSync(join(tree, "arch/x86/boot/bzImage"), join(work, "result/bzImage"));
  return run([...make, "-s", "kernelrelease"], tree).trim();
}

/** Takes the base's files out of their packages into work/result/base. */
export function collectBase(manifest: Manifest, work: string, debs?: string): void {
  for (const record of manifest.base.packages) {
    const unpacked = join(work, "base", record.package);
    unpackPackage(fetchPackage(record, work, debs), unpacked);
    for (const file of manifest.base.files.filter((candidate) => candidate.package === record.package)) {
      const target = join(work, "result/base", file.path);
      mkdirSync(dirname(target), { recursive: true });
      // Follows the packages' links (libstdc++.so.6 → libstdc++.so.6.0.30): the result is plain files.
      copyFileSync(join(unpacked, file.member), target);
      chmodSync(target, Number.parseInt(file.mode, 8));
    }
  }
}
