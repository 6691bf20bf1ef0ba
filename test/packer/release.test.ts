import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { baseKey } from "../../packer/base.ts";
import { bundlePrograms } from "../../packer/program.ts";
import { NODE, nodeBinary, readRelease, readVerified } from "../../packer/release.ts";
import { failure, folder } from "./folder.ts";

const ROOT = join(import.meta.dirname, "../..");

test("the release is whole: kernel, libraries and Node are those that the manifest and the pin name", () => {
  const release = readRelease();
  expect(release.directory).toBe(ROOT);
  for (const { source, sha256 } of [release.kernel, ...release.libraries]) readVerified(source, sha256);
  readVerified(nodeBinary(), NODE.sha256);
});

test("the pin is package.json's", () => {
  const { optionalDependencies } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  expect(optionalDependencies[NODE.package]).toBe(NODE.version);
  expect([process.versions.node, process.versions.zlib, process.versions.zstd]).toEqual([
    NODE.version,
    NODE.zlib,
    NODE.zstd,
  ]);
});

test("a file that is absent or another one is refused", async () => {
  const directory = folder({ file: "content" });
  const path = join(directory, "file");
  const sha256 = createHash("sha256").update("content").digest("hex");
  expect(Buffer.from(readVerified(path, sha256)).toString()).toBe("content");
  const other = createHash("sha256").update("other").digest("hex");
  expect(await failure(() => readVerified(path, other))).toMatchObject({
    code: "E_INSTALL",
    message: `DIR/file: got SHA-256 ${sha256}, expected ${other}`,
  });
  const absent = await failure(() => readVerified(`${path}2`, sha256));
  expect(absent).toMatchObject({ code: "E_INSTALL", message: expect.stringContaining("ENOENT") });
});

test("our programs are bundled alike every time, and their bytes are part of the base's key", async () => {
  const release = readRelease();
  const [once, twice] = await Promise.all([bundlePrograms(release), bundlePrograms(release)]);
  expect(once).toEqual(twice);
  expect(once.map(({ target }) => target)).toEqual(["init", "lib/housekeeping.cjs", "lib/preload.cjs"]);
  const [init, ...others] = once;
  if (init === undefined) throw new Error("no init");
  const key = baseKey(release, once);
  expect(baseKey(release, twice)).toBe(key);
  const edited = { ...init, data: Buffer.concat([init.data, Buffer.from(" ")]) };
  expect(baseKey(release, [edited, ...others])).not.toBe(key);
  const [library, ...libraries] = release.libraries;
  if (library === undefined) throw new Error("no library");
  const patched = { ...release, libraries: [{ ...library, sha256: "0" }, ...libraries] };
  expect(baseKey(patched, once)).not.toBe(key);
  // No path of the machine it was made on.
  for (const { data } of once) expect(Buffer.from(data).includes(ROOT)).toBe(false);
});
