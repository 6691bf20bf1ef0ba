import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32, zstdDecompressSync } from "node:zlib";
import { afterAll, describe, expect, onTestFinished, test, vi } from "vitest";
import { decodeCpio } from "../../format/archive.ts";
import type { CpioRecord } from "../../format/cpio.ts";
import { describeEif } from "../../format/describe.ts";
import { decodeEnclaveJson } from "../../format/enclave.ts";
import { type BuildOptions, type BuildResult, build } from "../../packer/build.ts";
import { checkMemory } from "../../packer/memory.ts";
import { failure, fill, folder } from "./folder.ts";

const ROOT = join(import.meta.dirname, "../..");
const HELLO = join(ROOT, "examples/hello");
/** The quickest that is compressed at all. */
const QUICK: BuildOptions["overrides"] = { compression: { algorithm: "zstd", level: 1 }, memory: "256M" };

/** One cache for the whole file: the base is compressed once. */
const cacheDirectory = mkdtempSync(join(tmpdir(), "cloister-cache-"));
afterAll(() => rmSync(cacheDirectory, { recursive: true }));

/** A copy of the example, to be changed. */
function hello(): string {
  const directory = folder();
  cpSync(HELLO, directory, { recursive: true });
  return directory;
}

/** The records of each of the image's ramdisks. */
function ramdisks(result: BuildResult): CpioRecord[][] {
  const file = readFileSync(result.eifPath);
  const sections = result.sections.filter(({ type }) => type === "Ramdisk");
  return sections.map(({ offset, sizeBytes }) => {
    const data = file.subarray(offset + 12, offset + 12 + sizeBytes);
    const end = data.findLastIndex((byte) => byte !== 0) + 1;
    return [...decodeCpio(zstdDecompressSync(data.subarray(0, end)))];
  });
}

function contents(records: readonly CpioRecord[] | undefined, path: string): Buffer {
  return Buffer.concat(records?.find((record) => record.path === path)?.data ?? []);
}

describe("building examples/hello", () => {
  test("gives an image that an independent reader measures and describes alike", async () => {
    const directory = hello();
    const result = await build({ directory, cacheDirectory, overrides: QUICK });
    expect(result.eifPath).toBe(join(directory, "hello.eif"));
    const file = await open(result.eifPath);
    onTestFinished(() => file.close());
    const { size } = await file.stat();
    expect(result.sizeBytes).toBe(size);
    const reader = {
      size,
      read: async (offset: number, length: number) => {
        const { buffer } = await file.read(Buffer.alloc(length), 0, length, offset);
        return buffer;
      },
    };
    const description = await describeEif(reader, { createSha384: () => createHash("sha384"), crc32 });
    expect(description).toMatchObject({
      EifVersion: 4,
      CheckCRC: true,
      IsSigned: false,
      Measurements: result.measurements,
      ImageName: "hello",
      ImageVersion: "1.0.0",
      Metadata: {
        BuildTime: "1970-01-01T00:00:00+00:00",
        BuildTool: "cloister",
        OperatingSystem: "Linux",
        KernelVersion: expect.stringMatching(/^6\.12\./),
      },
    });
    expect(result.sections.map(({ type }) => type)).toEqual([
      "Kernel",
      "Cmdline",
      "Metadata",
      "Ramdisk",
      "Ramdisk",
    ]);
    expect(result.memoryMiB.configured).toBe(256);
    // EIF header: default memory in bytes at 8, default CPUs at 16.
    const header = readFileSync(result.eifPath).subarray(0, 24);
    expect([header.readBigUInt64BE(8), header.readBigUInt64BE(16)]).toEqual([256n << 20n, 2n]);
  });

  test("puts the same first ramdisk below every app, and the app in the second", async () => {
    const directory = hello();
    const one = await build({ directory, cacheDirectory, overrides: QUICK });
    const [base, app] = ramdisks(one);
    expect(app?.map(({ path }) => path)).toEqual([
      "app",
      "app/enclave.json",
      "app/main.mjs",
      "app/main.mjs.map",
    ]);
    expect(base?.map(listed)).toEqual(BASE);
    expect(contents(base, "init").toString().split("\n")[0]).toBe("#!/bin/node");
    expect(decodeEnclaveJson(contents(app, "app/enclave.json"))).toEqual({
      version: 1,
      name: "hello",
      entry: "main.mjs",
      ports: [8080],
      env: {},
      egress: [],
      ca: [],
      attestation: true,
      tls: false,
      ready: "listen",
      redact: [],
      tmpMiB: 64,
      proxyProtocol: false,
      dev: false,
    });
    const two = await build({
      directory: join(ROOT, "examples/node-server"),
      output: join(directory, "other.eif"),
      cacheDirectory,
      overrides: QUICK,
    });
    expect(two.measurements.PCR1).toBe(one.measurements.PCR1);
    expect(two.measurements.PCR0).not.toBe(one.measurements.PCR0);
    expect(two.measurements.PCR2).not.toBe(one.measurements.PCR2);
  });

  test("keeps copied packages in a ramdisk of their own, which an edit leaves alone", async () => {
    const directory = folder({
      "app.ts": 'import { text } from "reader"; console.log(text);',
      "node_modules/reader/package.json": '{"name":"reader"}',
      "node_modules/reader/index.js": "exports.text = __dirname;",
    });
    const result = await build({ directory, cacheDirectory, overrides: QUICK });
    const [, packages, app] = ramdisks(result);
    expect(packages?.map(({ path }) => path)).toEqual([
      "app",
      "app/node_modules",
      "app/node_modules/reader",
      "app/node_modules/reader/index.js",
      "app/node_modules/reader/package.json",
    ]);
    expect(app?.map(({ path }) => path)).toContain("app/main.mjs");
  });
});

function listed({ mode, path, rdevmajor, rdevminor }: CpioRecord): string {
  return `${mode.toString(8)} ${path}${rdevmajor === 0 ? "" : ` ${rdevmajor}:${rdevminor}`}`;
}

/** Mode, path and device of everything in ramdisk 0. */
const BASE = [
  "40755 app",
  "40755 bin",
  "100755 bin/node",
  "40755 dev",
  "20600 dev/console 5:1",
  "20666 dev/null 1:3",
  "40755 etc",
  "100644 etc/group",
  "100644 etc/hosts",
  "100644 etc/nsswitch.conf",
  "100644 etc/passwd",
  "100755 init",
  "40755 lib",
  "100644 lib/housekeeping.cjs",
  "100644 lib/preload.cjs",
  "40755 lib/x86_64-linux-gnu",
  "100644 lib/x86_64-linux-gnu/libatomic.so.1",
  "100755 lib/x86_64-linux-gnu/libc.so.6",
  "100644 lib/x86_64-linux-gnu/libdl.so.2",
  "100644 lib/x86_64-linux-gnu/libgcc_s.so.1",
  "100644 lib/x86_64-linux-gnu/libm.so.6",
  "100644 lib/x86_64-linux-gnu/libpthread.so.0",
  "100644 lib/x86_64-linux-gnu/libresolv.so.2",
  "100644 lib/x86_64-linux-gnu/librt.so.1",
  "100644 lib/x86_64-linux-gnu/libstdc++.so.6",
  "100644 lib/x86_64-linux-gnu/libutil.so.1",
  "40755 lib64",
  "100755 lib64/ld-linux-x86-64.so.2",
  "40555 proc",
  "40700 root",
  "40755 run",
  "40555 sys",
  "41777 tmp",
  "40755 var",
  "41777 var/tmp",
];

describe("the same project gives the same bytes", () => {
  /** Everything whose order or content a machine could change: assets of a folder, a copied package, variables. */
  const PROJECT = {
    "app.ts": `import { readdirSync } from "node:fs"; import { text } from "reader"; import logo from "./logo.png";
      console.log(text, logo, readdirSync(new URL("./public/", import.meta.url)));`,
    "logo.png": "png",
    "public/a.txt": "a",
    "public/b/c.txt": "c",
    "public/ä.txt": "ä",
    "package.json": '{"name":"same","version":"1.2.3"}',
    "cloister.config.ts": 'export default { env: { B: "2", A: "1" }, compression: { level: 1 } };',
    "node_modules/reader/package.json": '{"name":"reader"}',
    "node_modules/reader/index.js": "exports.text = __dirname;",
    "node_modules/reader/z.txt": "z",
  };
  /** Run before the build: directories list backwards, and it is another day. */
  const PRELOAD = `
    import fs from "node:fs"; import { syncBuiltinESMExports } from "node:module";
    const list = fs.readdirSync; fs.readdirSync = (...args) => list(...args).reverse();
    syncBuiltinESMExports();
    const now = Date.now; Date.now = () => now() + 1e12;`;

  function buildElsewhere(directory: string, cache: string, preload: string, umask: string): BuildResult {
    const program = `import { build } from ${JSON.stringify(join(ROOT, "packer/index.ts"))};
      console.log(JSON.stringify(await build(${JSON.stringify({ directory, cacheDirectory: cache })})));`;
    const script = `umask ${umask}; exec "$0" --import "$1" --input-type=module -e "$2"`;
    const stdout = execFileSync(
      "/bin/sh",
      ["-c", script, process.execPath, `data:text/javascript,${encodeURIComponent(preload)}`, program],
      {
        encoding: "utf8",
        env: { PATH: process.env.PATH, HOME: folder(), TZ: umask === "022" ? "UTC" : "Asia/Tokyo" },
      },
    );
    return JSON.parse(stdout) as BuildResult;
  }

  test("in another folder, time zone and day, with another umask, order of files and cache", () => {
    const first = folder();
    const second = join(folder(), "a/deeper/place");
    const shell = (umask: string, directory: string, files: object) =>
      spawnSync("/bin/sh", [
        "-c",
        `umask ${umask}; exec "$0" -e "$1" "$2" "$3"`,
        process.execPath,
        FILL,
        directory,
        JSON.stringify(files),
      ]);
    shell("022", first, PROJECT);
    shell("077", second, Object.fromEntries(Object.entries(PROJECT).reverse()));
    const cold = buildElsewhere(first, join(first, "cache"), "", "022");
    const image = readFileSync(cold.eifPath);
    const warm = buildElsewhere(first, join(first, "cache"), "", "022");
    const other = buildElsewhere(second, join(second, "cache"), PRELOAD, "077");
    expect(warm.measurements).toEqual(cold.measurements);
    expect(Buffer.compare(readFileSync(warm.eifPath), image)).toBe(0);
    expect(other.measurements).toEqual(cold.measurements);
    expect(Buffer.compare(readFileSync(other.eifPath), image)).toBe(0);
  });

  /** Writes argv[2], a JSON table of files, below argv[1]. */
  const FILL = `const fs = require("node:fs"), path = require("node:path");
    for (const [name, text] of Object.entries(JSON.parse(process.argv[2]))) {
      const file = path.join(process.argv[1], name);
      fs.mkdirSync(path.dirname(file), { recursive: true });
      fs.writeFileSync(file, text);
    }`;

  test("and other bytes when any of them changes", async () => {
    const directory = hello();
    const options = { directory, cacheDirectory, overrides: QUICK };
    const before = (await build(options)).measurements;
    fill(directory, { "app.ts": "export default { fetch: () => new Response('changed') };" });
    const after = (await build(options)).measurements;
    expect(after.PCR1).toBe(before.PCR1);
    expect(after.PCR2).not.toBe(before.PCR2);
    const env = (await build({ ...options, overrides: { ...QUICK, env: { A: "1" } } })).measurements;
    expect(env.PCR2).not.toBe(after.PCR2);
  });

  test("but for the build time, which is not measured and comes from outside", async () => {
    const options = { directory: hello(), cacheDirectory, overrides: QUICK };
    const dated = await build({ ...options, buildTime: 1_700_000_000 });
    expect(readFileSync(dated.eifPath).includes('"BuildTime":"2023-11-14T22:13:20+00:00"')).toBe(true);
    expect((await build(options)).measurements).toEqual(dated.measurements);
    vi.stubEnv("SOURCE_DATE_EPOCH", "1700000000");
    expect((await build(options)).eifPath).toBe(dated.eifPath);
    expect(readFileSync(dated.eifPath).includes("2023-11-14T22:13:20")).toBe(true);
    vi.stubEnv("SOURCE_DATE_EPOCH", "yesterday");
    expect(await failure(() => build(options))).toMatchObject({
      code: "E_CONFIG",
      message: 'SOURCE_DATE_EPOCH: got "yesterday", expected seconds since 1970',
    });
    vi.unstubAllEnvs();
  });
});

describe("an image that cannot be is refused", () => {
  test("too little memory, with the numbers", async () => {
    const directory = hello();
    const overrides = { ...QUICK, memory: "128M" } as const;
    const error = await failure(() => build({ directory, cacheDirectory, overrides }));
    expect(error.code).toBe("E_MEMORY_TOO_SMALL");
    expect(error.message).toMatch(
      /^memory: got 128 MiB, expected at least (?:19|20)\d MiB: 117 for unpacked files, \d+ for packed/,
    );
    expect(error.fix).toMatch(/^Set memory: "(?:19|20)\dM" or more/);
    expect(existsSync(join(directory, "hello.eif"))).toBe(false);
  });

  test("by default the example fits 192 MiB and 41 MB; nitro-cli's own rule is told", async () => {
    const part = (archiveBytes: number, bytes: number) => ({ archiveBytes, data: new Uint8Array(bytes) });
    expect(checkMemory(192, [part(121_900_000, 36_900_000)], 39_400_000)).toEqual({
      memoryMiB: { configured: 192, needed: 190 },
      warnings: [],
    });
    expect(checkMemory(512, [part(300_000_000, 150_000_000)], 152_500_000).warnings).toEqual([
      "memory: 512 MiB is enough, but nitro-cli starts this image only with 584 MiB",
    ]);
  });

  test("an output that cannot be written, and nothing is left of it", async () => {
    const directory = hello();
    fill(directory, { "taken/x": "", file: "" });
    const names = readdirSync(directory).sort();
    for (const [output, message] of [
      ["absent/x.eif", "found no such directory"],
      ["taken", "found a directory, expected a file or nothing"],
      ["file/x.eif", "found a file where a directory should be"],
    ] as const) {
      const error = await failure(() => build({ directory, output, cacheDirectory, overrides: QUICK }));
      expect([error.code, error.message]).toEqual(["E_WRITE", `DIR/${output}: ${message}`]);
    }
    expect(readdirSync(directory).sort()).toEqual(names);
  });

  const disk = folderOnSmallDisk();
  test.skipIf(disk === undefined)("a full disk (needs root, for a disk of 8 MB)", async () => {
    const output = join(disk ?? "", "app.eif");
    fill(disk ?? "", { "app.eif": "the old one" });
    const error = await failure(() =>
      build({ directory: hello(), output, cacheDirectory, overrides: QUICK }),
    );
    expect(error.code).toBe("E_WRITE");
    expect(error.message).toBe(`${output}: got a full disk, expected room for the image`);
    expect(readdirSync(disk ?? "")).toEqual(["app.eif"]);
    expect(readFileSync(output, "utf8")).toBe("the old one");
  });

  function folderOnSmallDisk(): string | undefined {
    const directory = mkdtempSync(join(tmpdir(), "cloister-disk-"));
    const { status } = spawnSync("mount", ["-t", "tmpfs", "-o", "size=8m", "tmpfs", directory]);
    afterAll(() => {
      if (status === 0) spawnSync("umount", [directory]);
      rmSync(directory, { recursive: true });
    });
    return status === 0 ? directory : undefined;
  }
});

test("builds at the same time, into one file and one cache, do not disturb each other", async () => {
  const directory = hello();
  const cache = join(directory, "cache");
  const options = { directory, cacheDirectory: cache, overrides: QUICK };
  const results = await Promise.all([build(options), build(options), build(options)]);
  expect(new Set(results.map(({ measurements }) => measurements.PCR0)).size).toBe(1);
  expect(readFileSync(join(directory, "hello.eif")).length).toBe(results[0]?.sizeBytes);
  expect(readdirSync(directory).filter((name) => name.endsWith(".eif") || name.startsWith("."))).toEqual([
    "hello.eif",
  ]);
});

test("progress is told step by step", async () => {
  const steps: string[] = [];
  const directory = hello();
  await build({ directory, cacheDirectory, overrides: QUICK, onProgress: (step) => steps.push(step) });
  expect(steps).toEqual([
    "Bundling app.ts",
    "Compressing the app",
    `Writing ${join(directory, "hello.eif")}`,
  ]);
});
