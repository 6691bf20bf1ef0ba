import { mkdirSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { isNative } from "../../packer/addon.ts";
import { bundleApp } from "../../packer/bundle.ts";
import { ELF_HEADER, ELF_HEADER_SIZE } from "../../packer/elf.ts";
import { findPackage } from "../../packer/package.ts";
import { loadProject } from "../../packer/project.ts";
import { bundled, type Files, failure, folder, manifest, output, run } from "./folder.ts";

/** As much of a shared object as is looked at: class, byte order, machine. */
function addon(machine: number): Uint8Array {
  const file = new Uint8Array(ELF_HEADER_SIZE);
  const view = new DataView(file.buffer);
  view.setUint32(ELF_HEADER.magic, 0x7f454c46);
  view.setUint8(ELF_HEADER.class, 2);
  view.setUint8(ELF_HEADER.data, 1);
  view.setUint16(ELF_HEADER.machine, machine, true);
  return file;
}

const X64 = addon(62);
const ARM64 = addon(183);
const MACH_O = Uint8Array.of(0xcf, 0xfa, 0xed, 0xfe, ...new Uint8Array(100));
const APP = { "app.ts": 'import value from "native"; console.log(value);' };

/** A package `native` with these files, under node_modules of a project that imports it. */
function native(fields: object, files: Files): Files {
  const own = Object.entries(files).map(([path, data]) => [
    path.startsWith("node_modules/") ? path : `node_modules/native/${path}`,
    data,
  ]);
  return {
    ...APP,
    "node_modules/native/package.json": manifest({ name: "native", ...fields }),
    "node_modules/native/index.js": "module.exports = 7;",
    ...Object.fromEntries(own),
  };
}

function platform(name: string, fields: object, file: Uint8Array): Files {
  return {
    [`node_modules/${name}/package.json`]: manifest({ name, main: "x.node", ...fields }),
    [`node_modules/${name}/x.node`]: file,
  };
}

const LINUX = { os: ["linux"], cpu: ["x64"], libc: ["glibc"] };

describe("a package is known to be native by", () => {
  test.each<[string, object, Files]>([
    ["gypfile", { gypfile: true }, {}],
    ["binary", { binary: { napi_versions: [3] } }, {}],
    ["napi", { napi: { name: "x" } }, {}],
    ["binding.gyp", {}, { "binding.gyp": "{}" }],
    ["an addon beside its package.json", {}, { "x.linux-x64-gnu.node": X64 }],
    ["prebuilds", {}, { "prebuilds/linux-x64/node.napi.node": X64 }],
    ["its own build", {}, { "build/Release/x.node": X64 }],
    [
      "an installed platform package",
      { optionalDependencies: { helper: "1" } },
      platform("helper", LINUX, X64),
    ],
    ["the name of one that is not", { optionalDependencies: { "@x/native-linux-x64-gnu": "1" } }, {}],
  ])("%s", (_, fields, files) => {
    const found = findPackage("native", folder(native(fields, files)));
    expect(found !== undefined && isNative(found)).toBe(true);
  });

  test.each<[string, object, Files]>([
    ["plain code", {}, {}],
    ["gypfile: false", { gypfile: false }, {}],
    [
      "optional packages for everywhere",
      { optionalDependencies: { dep: "1", absent: "1" } },
      {
        "node_modules/dep/package.json": manifest({ name: "dep" }),
      },
    ],
  ])("not by %s", (_, fields, files) => {
    const found = findPackage("native", folder(native(fields, files)));
    expect(found !== undefined && isNative(found)).toBe(false);
  });
});

describe("a native package is copied", () => {
  async function paths(files: Files): Promise<string[]> {
    return (await bundled(files)).map(({ path }) => path).filter((path) => path.startsWith("node_modules/"));
  }

  test("whole, without what only people, compilers and other platforms read", async () => {
    const files = native(
      { gypfile: true },
      {
        "README.md": "",
        LICENSE: "",
        "index.d.ts": "",
        "index.js.map": "",
        "lib/data.json": "{}",
        "build/Release/x.node": X64,
        "build/Release/obj.target/x.o": X64,
        "prebuilds/linux-x64/a.glibc.node": X64,
        "prebuilds/linux-x64/a.musl.node": X64,
        "prebuilds/linux-arm64/a.node": ARM64,
        "prebuilds/darwin-x64+arm64/a.node": MACH_O,
        "other/darwin.node": MACH_O,
        "node_modules/native/node_modules/stray/index.js": "",
      },
    );
    expect(await paths(files)).toEqual(
      [
        "LICENSE",
        "build/Release/x.node",
        "index.js",
        "lib/data.json",
        "package.json",
        "prebuilds/linux-x64/a.glibc.node",
      ].map((file) => `node_modules/native/${file}`),
    );
  });

  test("with its dependencies, and of the optional ones those for the enclave", async () => {
    const files = native(
      {
        dependencies: { dep: "1" },
        peerDependencies: { peer: "1", absent: "1" },
        optionalDependencies: { "native-linux": "1", "native-darwin": "1", "native-musl": "1" },
      },
      {
        ...platform("native-linux", LINUX, X64),
        ...platform("native-darwin", { os: ["darwin"] }, MACH_O),
        ...platform("native-musl", { ...LINUX, libc: ["musl"] }, X64),
        "node_modules/dep/package.json": manifest({
          name: "dep",
          dependencies: { deeper: "1", native: "1" },
        }),
        "node_modules/deeper/package.json": manifest({ name: "deeper" }),
        "node_modules/peer/package.json": manifest({ name: "peer" }),
        "node_modules/unrelated/package.json": manifest({ name: "unrelated" }),
      },
    );
    const packages = new Set((await paths(files)).map((path) => path.split("/")[1]));
    expect([...packages].sort()).toEqual(["deeper", "dep", "native", "native-linux", "peer"]);
  });

  describe("so that each finds the versions it was installed with", () => {
    const version = (name: string, at: string, number: string, dependencies = {}): Files => ({
      [`${at}/package.json`]: manifest({ name, version: number, dependencies }),
      [`${at}/index.js`]: `module.exports = "${name}@${number}(" +
        ${JSON.stringify(Object.keys(dependencies))}.map((name) => require(name)) + ")";`,
    });
    const root = native(
      { gypfile: true, dependencies: { a: "1", b: "1" } },
      {
        "build/Release/x.node": X64,
        "index.js": 'module.exports = [require("a"), require("b")].join(" ");',
      },
    );

    test("below the package that needs another than the top's", async () => {
      // "a" is placed first and takes the top for x@2.
      const files = {
        ...root,
        ...version("a", "node_modules/a", "1", { x: "2" }),
        ...version("x", "node_modules/x", "2"),
        ...version("b", "node_modules/b", "1", { x: "1", y: "1" }),
        ...version("x", "node_modules/b/node_modules/x", "1", { y: "3" }),
        ...version("y", "node_modules/y", "1"),
        ...version("y", "node_modules/b/node_modules/x/node_modules/y", "3"),
      };
      expect((await output(files)).trim()).toBe("a@1(x@2()) b@1(x@1(y@3()),y@1())");
    });

    test("where its parent's hides the top's, which it is linked to", async () => {
      const directory = folder({
        ...root,
        ...version("a", "node_modules/a", "1", { w: "2", x: "2" }),
        ...version("w", "node_modules/w", "2"),
        ...version("x", "node_modules/x", "2"),
        ...version("b", "node_modules/b", "1", { w: "1", x: "1" }),
        ...version("w", "node_modules/b/node_modules/w", "1"),
        ...version("x", "node_modules/b/node_modules/x", "1", { w: "2" }),
      });
      mkdirSync(join(directory, "node_modules/b/node_modules/x/node_modules"));
      symlinkSync(
        join(directory, "node_modules/w"),
        join(directory, "node_modules/b/node_modules/x/node_modules/w"),
      );
      const { files, packages } = await bundleApp(await loadProject({ directory }));
      expect(run([...files, ...packages]).stdout.trim()).toBe("a@1(w@2(),x@2()) b@1(w@1(),x@1(w@2()))");
    });
  });

  test("and works: lightningcss, whose addon is in a platform package", async () => {
    const directory = folder({
      "app.ts": `import { transform } from "lightningcss"; import { Buffer } from "node:buffer";
        console.log(transform({ filename: "a", code: Buffer.from("a { color: #ff0000 }"), minify: true }).code.toString());`,
    });
    symlinkSync(join(import.meta.dirname, "../../node_modules"), join(directory, "node_modules"));
    const { files, packages } = await bundleApp(await loadProject({ directory }));
    const names = new Set(packages.map(({ path }) => path.split("/")[1]));
    expect([...names].sort()).toEqual(["detect-libc", "lightningcss", "lightningcss-linux-x64-gnu"]);
    const { stdout, stderr } = run([...files, ...packages]);
    expect(stderr).toBe("");
    expect(stdout).toBe("a{color:red}\n");
  });

  test("an addon of the app itself is kept beside the bundle", async () => {
    const source = join(import.meta.dirname, "../../node_modules/lightningcss-linux-x64-gnu");
    const name = readdirSync(source).find((file) => file.endsWith(".node")) ?? "";
    const files = {
      "src/app.ts": 'import addon from "../own.node"; console.log(typeof addon.transform);',
      "own.node": readFileSync(join(source, name)),
    };
    expect(await output(files)).toBe("function\n");
  });
});

describe("a native package that cannot work is refused at build time", () => {
  const expected = "expected one for linux-x64-glibc";
  test.each<[string, Files, string]>([
    [
      "its addon is for another system",
      native({}, { "x.node": MACH_O }),
      `package "native" 1.0.0: got x.node for other platforms, ${expected}`,
    ],
    [
      "its addon is for another processor",
      native({ gypfile: true }, { "build/Release/x.node": ARM64 }),
      `package "native" 1.0.0: got build/Release/x.node for other platforms, ${expected}`,
    ],
    [
      "it was never compiled",
      native({ gypfile: true }, {}),
      `package "native" 1.0.0: found no addon in it, ${expected}: it was never compiled`,
    ],
    [
      "its platform package is not installed",
      native(
        { optionalDependencies: { "native-linux-x64-gnu": "1", "native-darwin-arm64": "1" } },
        platform("native-darwin-arm64", { os: ["darwin"], cpu: ["arm64"] }, MACH_O),
      ),
      `package "native" 1.0.0: found no native-linux-x64-gnu installed, ${expected}`,
    ],
    [
      "only the musl one is installed",
      native(
        { optionalDependencies: { "native-linux-x64-gnu": "1", "native-linux-x64-musl": "1" } },
        platform("native-linux-x64-musl", { ...LINUX, libc: ["musl"] }, X64),
      ),
      `package "native" 1.0.0: found no native-linux-x64-gnu installed, ${expected}`,
    ],
    [
      "one that it depends on is the culprit",
      {
        ...native({ gypfile: true, dependencies: { deep: "1" } }, { "build/Release/x.node": X64 }),
        "node_modules/deep/package.json": manifest({ name: "deep", gypfile: true }),
      },
      `package "deep" 1.0.0: found no addon in it, ${expected}: it was never compiled`,
    ],
  ])("%s", async (_, files, message) => {
    expect(await failure(() => bundled(files))).toMatchObject({ code: "E_ADDON", message });
  });

  test("the app's own addon is for another system", async () => {
    const files = { "app.ts": 'import "./own.node";', "own.node": MACH_O };
    expect(await failure(() => bundled(files))).toMatchObject({
      code: "E_ADDON",
      message: "DIR/own.node: got no x86_64 ELF file, expected an addon for linux-x64-glibc",
    });
  });

  test("two versions are imported", async () => {
    const files = {
      ...native({ gypfile: true }, { "build/Release/x.node": X64 }),
      "app.ts": 'import "native"; import "user";',
      "node_modules/user/package.json": manifest({ name: "user" }),
      "node_modules/user/index.js": 'require("native");',
      "node_modules/user/node_modules/native/package.json": manifest({
        name: "native",
        version: "2.0.0",
        gypfile: true,
      }),
      "node_modules/user/node_modules/native/build/Release/x.node": X64,
    };
    expect(await failure(() => bundled(files))).toMatchObject({
      code: "E_ADDON",
      message: 'package "native": got versions 1.0.0 and 2.0.0, expected one',
    });
  });

  test("but a package all of whose platforms are foreign does without them", async () => {
    const files = native(
      { optionalDependencies: { fsevents: "1" } },
      platform("fsevents", { os: ["darwin"] }, MACH_O),
    );
    expect(await output(files)).toBe("7\n");
  });
});
