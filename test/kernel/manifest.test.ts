// The committed kernel and base are what their manifest says, and what an enclave needs.

import { readdirSync, readFileSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { describe, expect, test } from "vitest";
import { readManifest, recordFile, unmetOptions } from "../../kernel/manifest.ts";
import { dynamicNames } from "./elf.ts";

const kernelDir = join(import.meta.dirname, "../../kernel");
const archDir = join(kernelDir, "x86_64");
const manifest = readManifest(archDir);
const text = (path: string): string => readFileSync(join(archDir, path), "utf8");

describe("manifest", () => {
  const { fragment, patches, config, image } = manifest.kernel;

  test.each([fragment, ...patches, config, image])("describes $path", (record) => {
    expect(recordFile(archDir, record.path)).toEqual(record);
  });

  test.each(manifest.base.files)("describes base/$path", ({ path, mode, sizeBytes, sha256 }) => {
    expect(recordFile(join(archDir, "base"), path)).toEqual({ path, sizeBytes, sha256 });
    // Git keeps one bit of the mode; the packer takes the mode from the manifest.
    const executable = (Number.parseInt(mode, 8) & 0o100) !== 0;
    expect((statSync(join(archDir, "base", path)).mode & 0o100) !== 0).toBe(executable);
  });

  test("names every file of base/ and every patch", () => {
    const files = readdirSync(join(archDir, "base"), { recursive: true, withFileTypes: true })
      .filter((entry) => !entry.isDirectory())
      .map((entry) => join(entry.parentPath, entry.name).slice(join(archDir, "base/").length));
    expect(files.sort()).toEqual(manifest.base.files.map((file) => file.path).sort());
    const patchFiles = readdirSync(join(kernelDir, "patches")).map((name) => `../patches/${name}`);
    expect(patchFiles.sort()).toEqual(patches.map((patch) => patch.path));
  });

  test("names the package of every base file", () => {
    const packages = new Set(manifest.base.packages.map((record) => record.package));
    for (const file of manifest.base.files) expect(packages).toContain(file.package);
  });

  test("names sources that LICENSES.md offers", () => {
    const licences = readFileSync(join(kernelDir, "LICENSES.md"), "utf8");
    for (const record of [manifest.kernel.source, ...manifest.base.packages]) {
      expect(licences).toContain(`${record.sourcePackage}=${record.sourceVersion}`);
    }
  });
});

describe("bzImage", () => {
  const image = readFileSync(join(archDir, manifest.kernel.image.path));

  test("follows the boot protocol that a loader at 1 MiB and above needs", () => {
    expect(image.toString("latin1", 0x202, 0x206)).toBe("HdrS");
    expect(image.readUInt16LE(0x206)).toBeGreaterThanOrEqual(0x20f);
    // LOADED_HIGH: the protected-mode part goes to 1 MiB, so this is no zImage.
    expect(image.readUInt8(0x211) & 1).toBe(1);
    expect(image.readUInt8(0x234), "relocatable, for KASLR").toBe(1);
    expect(image.readUInt16LE(0x236) & 1, "XLF_KERNEL_64").toBe(1);
    expect(image.readUInt32LE(0x238), "room for the command line").toBeGreaterThanOrEqual(2047);
  });

  test("is the release that the manifest names", () => {
    const start = 0x200 + image.readUInt16LE(0x20e);
    const version = image.toString("latin1", start, image.indexOf(0, start));
    expect(version.startsWith(`${manifest.kernel.release} (cloister@cloister) #1 SMP`)).toBe(true);
  });

  test("stays small", () => {
    expect(image.length).toBeLessThanOrEqual(3_000_000);
  });
});

describe("kernel.config", () => {
  const config = text(manifest.kernel.config.path);
  const on = new Set(config.split("\n").flatMap((line) => /^(CONFIG_\w+)=[ym]$/.exec(line)?.[1] ?? []));

  test("honours every line of the fragment", () => {
    expect(unmetOptions(text(manifest.kernel.fragment.path), config)).toEqual([]);
  });

  test("unmetOptions sees a dropped and a forced option", () => {
    const fragment = "CONFIG_A=y\n# CONFIG_B is not set\n# CONFIG_C is not set\n# a comment\n";
    expect(unmetOptions(fragment, "CONFIG_B=y\n# CONFIG_C is not set\n")).toEqual([
      "CONFIG_A=y",
      "# CONFIG_B is not set",
    ]);
  });

  test.each([
    "MODULES",
    "PCI",
    "BLOCK",
    "ACPI",
    "KEXEC",
    "KEXEC_FILE",
    "DEVMEM",
    "DEBUG_FS",
    "HIBERNATION",
    "IO_URING",
  ])("leaves out %s", (name) => {
    expect(on).not.toContain(`CONFIG_${name}`);
  });

  test("builds everything in", () => {
    expect(config).not.toMatch(/=m$/m);
  });
});

describe("base", () => {
  const names = new Map(
    manifest.base.files.map((file) => [
      basename(file.path),
      dynamicNames(readFileSync(join(archDir, "base", file.path))),
    ]),
  );

  test.each([...names])("%s is stored under its soname", (name, { soname }) => {
    expect(soname).toBe(name);
  });

  test("is closed: what a library needs is there", () => {
    for (const { needed } of names.values())
      for (const name of needed) expect([...names.keys()]).toContain(name);
  });
});
