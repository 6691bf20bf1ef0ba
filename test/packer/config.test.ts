import { describe, expect, test } from "vitest";
import { nearest } from "../../packer/check.ts";
import { defineConfig, parseConfig } from "../../packer/config.ts";
import { loadConfig, loadProject } from "../../packer/project.ts";
import { failure, folder } from "./folder.ts";

const DEFAULTS = {
  name: undefined,
  entry: undefined,
  memoryMiB: 512,
  cpus: 2,
  ports: [8080],
  env: {},
  egress: [],
  ca: [],
  attestation: true,
  tls: false,
  ready: "listen",
  redact: [],
  tmpMiB: 128,
  proxyProtocol: false,
  compression: { algorithm: "zstd", level: 9 },
};

describe("a configuration", () => {
  test("has a default for every field", () => expect(parseConfig({}, "c")).toEqual(DEFAULTS));

  test.each([
    [{ name: "my-app.2_x" }, { name: "my-app.2_x" }],
    [{ entry: "src/x.ts" }, { entry: "src/x.ts" }],
    [{ memory: 192 }, { memoryMiB: 192, tmpMiB: 48 }],
    [
      { memory: "192M", tmp: "64M" },
      { memoryMiB: 192, tmpMiB: 64 },
    ],
    [{ memory: "2G" }, { memoryMiB: 2048, tmpMiB: 512 }],
    [{ cpus: 1 }, { cpus: 1 }],
    [{ ports: [1, 0xffff_fffe] }, { ports: [1, 0xffff_fffe] }],
    [{ ports: [] }, { ports: [] }],
    [{ env: { A: "1", b_2: "" } }, { env: { A: "1", b_2: "" } }],
    [{ compression: { algorithm: "none" } }, { compression: { algorithm: "none" } }],
    [{ compression: { algorithm: "gzip" } }, { compression: { algorithm: "gzip", level: 9 } }],
    [{ compression: { algorithm: "gzip", level: 1 } }, { compression: { algorithm: "gzip", level: 1 } }],
    [{ compression: { level: 22 } }, { compression: { algorithm: "zstd", level: 22 } }],
    [{ attestation: false }, { attestation: false }],
    [{ egress: ["a.com:443", "*.b.com:*"] }, { egress: ["a.com:443", "*.b.com:*"] }],
    [{ ca: ["ca.pem"] }, { ca: ["ca.pem"] }],
    [{ tls: true }, { tls: true }],
    [{ ready: "app" }, { ready: "app" }],
    [{ redact: ["password", "/sk_\\w+/i"] }, { redact: ["password", "/sk_\\w+/i"] }],
    [{ tmp: 16 }, { tmpMiB: 16 }],
    [{ proxyProtocol: true }, { proxyProtocol: true }],
    [{ name: undefined }, {}],
  ])("%j is valid", (config, parsed) => {
    expect(parseConfig(config, "c")).toEqual({ ...DEFAULTS, ...parsed });
  });

  const cyclic: Record<string, unknown> = {};
  cyclic.self = cyclic;
  test.each([
    [[], "the default export: got [], expected an object"],
    [null, "the default export: got null, expected an object"],
    [() => 1, "the default export: got a function, expected an object"],
    [
      { memroy: 1 },
      'got "memroy", expected only name, entry, memory, cpus, ports, env, egress, ca, attestation, tls, ready, redact, tmp, proxyProtocol, compression',
    ],
    [{ name: "a/b" }, 'name: got "a/b", expected 1 to 64 letters'],
    [{ name: "x".repeat(65) }, "name: got "],
    [{ name: 7 }, "name: got 7, expected"],
    [{ entry: "" }, 'entry: got "", expected the path of a module'],
    [{ memory: "512MB" }, 'memory: got "512MB", expected MiB as a number, or "512M", "2G"'],
    [{ memory: 62 }, "memory: got 62, expected"],
    [{ memory: 193 }, "memory: got 193, expected"],
    [{ memory: "2000000G" }, "memory: got "],
    [{ memory: Number.NaN }, "memory: got null, expected"],
    [{ memory: 512n }, "memory: got 512n, expected"],
    [{ cpus: 0 }, "cpus: got 0, expected an integer from 1 to 512"],
    [{ cpus: 1.5 }, "cpus: got 1.5, expected"],
    [{ egress: "a.com:443" }, 'egress: got "a.com:443", expected an array of HOST:PORT'],
    [
      { egress: ["a.com:443", "https://a.com"] },
      'egress[1]: got "https://a.com", expected HOST:PORT such as "api.example.com:443", "*.example.com:443"',
    ],
    [{ egress: [443] }, "egress[0]: got 443, expected HOST:PORT such as"],
    [{ ca: ["", "x"] }, 'ca[0]: got "", expected the path of a PEM file'],
    [{ ca: "ca.pem" }, 'ca: got "ca.pem", expected an array of PEM files'],
    [{ tls: 1 }, "tls: got 1, expected true or false"],
    [{ ready: true }, 'ready: got true, expected "listen" or "app"'],
    [{ redact: "password" }, 'redact: got "password", expected an array of field names'],
    [{ redact: ["/[/"] }, 'redact[0]: got "/[/", expected a field\'s name, or a regular expression'],
    [
      { tmp: "1G" },
      'tmp: got "1G", expected MiB as a number, or "64M", "1G", from 1 MiB to the enclave\'s 512',
    ],
    [{ tmp: 0 }, "tmp: got 0, expected MiB"],
    [{ proxyProtocol: 2 }, "proxyProtocol: got 2, expected true or false"],
    [{ attestation: "no" }, 'attestation: got "no", expected true or false'],
    [{ tls: true, attestation: false }, 'tls: got true, expected false, with "attestation" turned off'],
    [{ ports: 8080 }, "ports: got 8080, expected an array of vsock ports"],
    [{ ports: [1, "x"] }, 'ports[1]: got "x", expected an integer from 1 to 4294967294'],
    [{ ports: [0] }, "ports[0]: got 0, expected"],
    [{ ports: [0xffff_ffff] }, "ports[0]: got 4294967295, expected"],
    [{ ports: [7, 8, 7] }, "ports[2]: got 7, expected a port that is not ports[0] already"],
    [{ env: "A=1" }, 'env: got "A=1", expected an object'],
    [{ env: { "A B": "" } }, 'env: got "A B", expected names of letters'],
    [{ env: { A: 1 } }, "env.A: got 1, expected a string without NUL"],
    [{ env: { A: "\0" } }, "env.A: got "],
    [{ env: { A: "\ud800" } }, "env.A: got "],
    [{ env: { A: cyclic } }, "env.A: got object, expected"],
    [{ compression: "zstd" }, 'compression: got "zstd", expected an object'],
    [
      { compression: { algorithm: "xz" } },
      'compression.algorithm: got "xz", expected "none", "gzip" or "zstd"',
    ],
    [
      { compression: { algorithm: "gzip", level: 10 } },
      "compression.level: got 10, expected an integer from 1 to 9",
    ],
    [{ compression: { level: 0 } }, "compression.level: got 0, expected an integer from 1 to 22"],
    [
      { compression: { algorithm: "none", level: 1 } },
      'compression.level: got 1, expected no level with "none"',
    ],
    [{ compression: { levle: 1 } }, 'compression: got "levle", expected only algorithm, level'],
  ])("%# is refused", async (config, message) => {
    const error = await failure(() => parseConfig(config, "cloister.config.ts"));
    expect(error.code).toBe("E_CONFIG");
    expect(error.message).toMatch(/^cloister\.config\.ts: /);
    expect(error.message).toContain(message);
  });

  test("a misspelt field is told its likely name", async () => {
    expect((await failure(() => parseConfig({ prots: [1] }, "c"))).fix).toBe('Did you mean "ports"?');
    expect(nearest("memroy", ["name", "memory"])).toBe("memory");
    expect(nearest("zzz", ["name", "memory"])).toBeUndefined();
  });

  test("defineConfig returns what it is given", () => {
    const config = { memory: "1G" } as const;
    expect(defineConfig(config)).toBe(config);
  });
});

describe("a configuration file", () => {
  test("may be TypeScript that imports cloister, its own modules and packages", async () => {
    const directory = folder({
      "cloister.config.ts": `
        import { basename } from "node:path";
        import { defineConfig, type CloisterConfig } from "cloister";
        import { PORT } from "./ports";
        import { memory } from "sizes";
        enum Size { Small = 1 }
        const extra = { cpus: Size.Small } satisfies CloisterConfig;
        export default defineConfig({
          memory, ports: [PORT], ...extra, env: { DIR: basename(import.meta.dirname), OS: require("node:os").EOL },
        });`,
      "ports.ts": "export const PORT: number = 5000;",
      "node_modules/sizes/package.json": '{"name":"sizes","main":"index.js"}',
      "node_modules/sizes/index.js": "exports.memory = '1G';",
    });
    expect(await loadConfig(directory)).toMatchObject({
      memoryMiB: 1024,
      ports: [5000],
      cpus: 1,
      env: { DIR: directory.split("/").at(-1), OS: "\n" },
    });
  });

  test.each([
    ["cloister.config.mts", "export default { cpus: 4 as number };"],
    ["cloister.config.js", "export default { cpus: 4 };"],
    ["cloister.config.mjs", "export default { cpus: await 4 };"],
    ["cloister.config.json", '{ "cpus": 4 }'],
  ])("may be %s", async (file, content) => {
    expect((await loadConfig(folder({ [file]: content }))).cpus).toBe(4);
  });

  test("may be absent, and options win over it", async () => {
    expect(await loadConfig(folder())).toEqual(DEFAULTS);
    const directory = folder({ "cloister.config.json": '{ "cpus": 4, "memory": 256 }' });
    expect(await loadConfig(directory, { cpus: 8 })).toMatchObject({ cpus: 8, memoryMiB: 256 });
  });

  test.each([
    ["export default { cpus: 'x' }", "E_CONFIG", 'cloister.config.ts: cpus: got "x", expected an integer'],
    ["export const config = {}", "E_CONFIG", "cloister.config.ts: found no default export"],
    ["throw new Error('no HOME')", "E_CONFIG", "cloister.config.ts: got Error: no HOME, expected a module"],
    ["throw 7", "E_CONFIG", "cloister.config.ts: got 7, expected a module"],
    ["export default {", "E_BUNDLE", "cloister.config.ts:1: "],
    ["import 'absent'", "E_PACKAGE", 'cloister.config.ts:1: package "absent" is not installed'],
  ])("%j is refused", async (content, code, message) => {
    const error = await failure(() => loadConfig(folder({ "cloister.config.ts": content })));
    expect(error).toMatchObject({ code, message: expect.stringContaining(message) });
  });

  test("a wrong option is not blamed on the file", async () => {
    const error = await failure(() => loadConfig(folder({ "cloister.config.json": "{}" }), { cpus: 0 }));
    expect(error.message).toBe("options: cpus: got 0, expected an integer from 1 to 512");
  });

  test("there is one of them, and JSON is JSON", async () => {
    const both = folder({ "cloister.config.ts": "", "cloister.config.json": "{}" });
    expect((await failure(() => loadConfig(both))).message).toContain(
      "got cloister.config.ts and cloister.config.json, expected one of them",
    );
    expect((await failure(() => loadConfig(folder({ "cloister.config.json": "{" })))).message).toMatch(
      /^cloister\.config\.json: got .*, expected JSON$/,
    );
  });
});

describe("a project", () => {
  test.each([
    [{ "app.ts": "", "index.ts": "" }, undefined, "app.ts"],
    [{ "src/app.ts": "", "index.ts": "" }, undefined, "src/app.ts"],
    [{ "index.js": "" }, undefined, "index.js"],
    [{ "app.ts": "", "other.ts": "" }, "other.ts", "other.ts"],
    [{ "app.ts": "", "x.ts": "", "cloister.config.json": '{"entry":"x.ts"}' }, undefined, "x.ts"],
    [{ "app.ts": "", "x.ts": "", "cloister.config.json": '{"entry":"x.ts"}' }, "./app.ts", "app.ts"],
  ])("%j with entry %s begins at %s", async (files, entry, found) => {
    const directory = folder(files);
    const project = await loadProject({ directory, ...(entry === undefined ? {} : { entry }) });
    expect(project.entry).toBe(found);
  });

  test.each([
    [{}, "app", "0.0.0"],
    [{ name: "@acme/signer", version: "2.1.0" }, "signer", "2.1.0"],
    [{ name: "_ weird näme" }, "weird-n-me", "0.0.0"],
    [{ name: 7, version: 8 }, "app", "0.0.0"],
    [null, "app", "0.0.0"],
  ])("package.json %j names it", async (content, name, version) => {
    const directory = folder({ "app.ts": "", "package.json": JSON.stringify(content) });
    expect(await loadProject({ directory })).toMatchObject({ name, version });
  });

  test("its configuration's name wins, and its folder's is no name, for it would be measured", async () => {
    const named = folder({
      "app.ts": "",
      "package.json": '{"name":"x"}',
      "cloister.config.json": '{"name":"y"}',
    });
    expect((await loadProject({ directory: named })).name).toBe("y");
    expect((await loadProject({ directory: folder({ "app.ts": "" }) })).name).toBe("app");
  });

  test.each([
    [{}, undefined, "DIR: found no entry module, expected one of app.ts, src/app.ts, …"],
    [{ "app.ts": "" }, "absent.ts", "absent.ts: found no file in DIR, expected the app's module"],
    [{ "app.ts/x": "" }, "app.ts", "app.ts: found no file in DIR, expected the app's module"],
  ])("%j with entry %s has none", async (files, entry, message) => {
    const directory = folder(files);
    const options = { directory, ...(entry === undefined ? {} : { entry }) };
    expect(await failure(() => loadProject(options))).toMatchObject({ code: "E_ENTRY", message });
  });

  test("its folder exists", async () => {
    const directory = `${folder()}/absent`;
    expect((await failure(() => loadProject({ directory }))).code).toBe("E_ENTRY");
  });
});
