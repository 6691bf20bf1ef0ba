/** `create-cloister` as a function: flags, questions, names, and nothing half-written. Its packed self: test/package/. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { create, type Io, type Questions } from "../../create/create.ts";
import { Failure } from "../../create/failure.ts";
import { detectManager } from "../../create/install.ts";
import { TEMPLATES } from "../../create/options.ts";

const ROOT = join(import.meta.dirname, "../..");
let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "cloister-create-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
});

async function call(words: readonly string[], edges: Partial<Io> = {}) {
  let stdout = "";
  let stderr = "";
  const status = await create(words, {
    stdout: { write: (text) => (stdout += text) },
    stderr: { write: (text) => (stderr += text) },
    env: {},
    directory,
    isTTY: false,
    questions: () => Promise.reject(new Error("asked")),
    ...edges,
  });
  return { status, stdout, stderr };
}

const manifest = (path: string) => JSON.parse(readFileSync(join(directory, path, "package.json"), "utf8"));

test.each(Object.keys(TEMPLATES))("%s is written whole, with the directory's name", async (template) => {
  const { status, stdout } = await call(["my-app", "--template", template, "--no-install"]);
  expect(status).toBe(0);
  expect(stdout).toContain("cd my-app\n");
  expect(stdout).toContain("npm install\n");
  const written = readdirSync(join(directory, "my-app")).sort();
  const source = readdirSync(join(ROOT, "create/templates", template)).sort();
  expect(written).toEqual(source.map((name) => name.replace(/^_gitignore$/, ".gitignore")).sort());
  expect(manifest("my-app").name).toBe("my-app");
  expect(readdirSync(directory)).toEqual(["my-app"]);
});

test("templates name this release of cloister, and the packages it is developed with", () => {
  const { version, devDependencies } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  expect(JSON.parse(readFileSync(join(ROOT, "create/package.json"), "utf8")).version).toBe(version);
  for (const template of Object.keys(TEMPLATES)) {
    const path = join(ROOT, "create/templates", template, "package.json");
    const { dependencies, devDependencies: own } = JSON.parse(readFileSync(path, "utf8"));
    expect(own.cloister).toBe(version);
    for (const [name, found] of Object.entries({ ...dependencies, ...own })) {
      expect([name, found]).toEqual([name, name === "cloister" ? version : (devDependencies[name] ?? found)]);
    }
  }
});

test("without words it is my-app, from the template fetch", async () => {
  await call(["--no-install"]);
  expect(readFileSync(join(directory, "my-app/app.ts"), "utf8")).toContain("async fetch(");
});

test("--name and --cloister go to package.json", async () => {
  await call(["x", "--no-install", "--name", "other", "--cloister", "../cloister.tgz"]);
  const { name, devDependencies } = manifest("x");
  expect([name, devDependencies.cloister]).toEqual(["other", "../cloister.tgz"]);
});

test("a path that a shell would split is quoted where it is to be typed", async () => {
  const { stdout } = await call(["it's here", "--name", "app", "--no-install"]);
  expect(stdout).toContain("  cd 'it'\\''s here'\n");
});

test.each([
  ["npm", []],
  ["bun", []],
  ["pnpm", ["pnpm-workspace.yaml"]],
  ["yarn", [".yarnrc.yml"]],
])("%s gets what it needs to install", async (manager, files) => {
  await call(["app", "--no-install", "--manager", manager]);
  const template = readdirSync(join(ROOT, "create/templates/fetch")).map((name) => name.replace(/^_/, "."));
  const written = readdirSync(join(directory, "app"));
  expect(written.filter((name) => !template.includes(name))).toEqual(files);
});

test("a member of a pnpm workspace is not made one of its own", async () => {
  writeFileSync(join(directory, "pnpm-workspace.yaml"), "packages: [apps/*]\n");
  await call(["apps/app", "--no-install", "--manager", "pnpm"]);
  expect(readdirSync(join(directory, "apps/app"))).not.toContain("pnpm-workspace.yaml");
});

describe("an existing directory", () => {
  test("that is empty but for .git is filled, and stays the same one", async () => {
    mkdirSync(join(directory, "app/.git"), { recursive: true });
    const { ino } = statSync(join(directory, "app"));
    const { status } = await call([".", "--no-install"], { directory: join(directory, "app") });
    expect([status, statSync(join(directory, "app")).ino]).toEqual([0, ino]);
    expect(readdirSync(join(directory, "app"))).toContain("app.ts");
    expect(readdirSync(join(directory, "app")).filter((name) => name.startsWith(".create"))).toEqual([]);
  });

  test("that has files is refused and left alone", async () => {
    mkdirSync(join(directory, "app"));
    for (const name of ["a", "b", "c", "d"]) writeFileSync(join(directory, "app", name), "");
    const { status, stderr } = await call(["app", "--no-install"]);
    expect([status, stderr]).toEqual([1, expect.stringContaining("a, b, c, …, expected an empty one")]);
    expect(readdirSync(join(directory, "app"))).toEqual(["a", "b", "c", "d"]);
  });

  test("that is a file is refused", async () => {
    writeFileSync(join(directory, "app"), "");
    expect((await call(["app", "--no-install"])).stderr).toContain("got a file, expected a directory");
  });
});

test.each([
  ["My App", "--name my-app"],
  ["_x", "--name x"],
  ["ß", "--name my-app"],
  ["a".repeat(65), `--name ${"a".repeat(64)}`],
])("the name %j is refused with one that would do", async (name, hint) => {
  const { status, stderr } = await call([name, "--no-install"]);
  expect([status, stderr.includes(hint), readdirSync(directory)]).toEqual([2, true, []]);
});

test.each([
  [["a", "b"], '"b" after "a"'],
  [["--template", "vue"], 'got "vue", expected one of fetch, hono'],
  [["--manager", "pip"], '"pip"'],
  [["--install", "--no-install"], "one of them"],
  [["--nonsense"], "--nonsense"],
])("%j is a usage error", async (words, text) => {
  const { status, stderr } = await call(words);
  expect([status, stderr.includes(text), readdirSync(directory)]).toEqual([2, true, []]);
});

test("a failure half-way leaves nothing", async () => {
  // A file in the way of a parent directory; as root no permission would stop it.
  writeFileSync(join(directory, "file"), "");
  const { status, stderr } = await call(["file/below/app", "--no-install"]);
  expect([status, stderr]).toEqual([1, expect.stringContaining("nothing was written")]);
  expect(readdirSync(directory)).toEqual(["file"]);
  // Everything is staged by then; a directory cannot take a symbolic link's place.
  symlinkSync("nowhere", join(directory, "link"));
  expect((await call(["link", "--no-install"])).stderr).toContain("nothing was written");
  expect(readdirSync(directory)).toEqual(["file", "link"]);
});

test("packages that cannot be installed: the project stays, and what to do is said", async () => {
  const bin = join(directory, "bin");
  mkdirSync(bin);
  writeFileSync(join(bin, "npm"), "#!/bin/sh\necho ENETUNREACH >&2\nexit 7\n");
  chmodSync(join(bin, "npm"), 0o755);
  const { PATH } = process.env;
  process.env.PATH = bin;
  onTestFinished(() => {
    process.env.PATH = PATH;
  });
  const { status, stderr } = await call(["app"]);
  expect([status, stderr]).toEqual([1, expect.stringContaining("npm install: got exit status 7")]);
  expect(stderr).toContain("npm install`");
  expect(existsSync(join(directory, "app/app.ts"))).toBe(true);
  expect((await call(["other", "--manager", "bun"])).stderr).toContain("bun install: got ENOENT");
});

test.each([
  ["pnpm/10.1.0 npm/? node/v20.0.0 linux x64", "pnpm"],
  ["yarn/1.22.22 npm/? node/v20.0.0 linux x64", "yarn"],
  ["bun/1.4.5 npm/? node/v24.3.0 linux x64", "bun"],
  ["npm/11.0.0 node/v20.0.0 linux x64 workspaces/false", "npm"],
  [undefined, "npm"],
])("the manager of %j is %s", (agent, manager) => {
  expect(detectManager(agent === undefined ? {} : { npm_config_user_agent: agent })).toBe(manager);
});

describe("on a terminal", () => {
  const asked: string[] = [];
  const questions: Questions = {
    greet: () => {},
    askDirectory: async (problem) => {
      asked.push("directory");
      expect(problem("taken")).toContain("expected an empty one");
      expect(problem("app")).toBeUndefined();
      return "app";
    },
    askName: async () => {
      asked.push("name");
      return "named";
    },
    askTemplate: async () => {
      asked.push("template");
      return "bare";
    },
    askInstall: async (manager) => {
      asked.push(`install with ${manager}`);
      return false;
    },
  };
  const terminal = { isTTY: true, questions: async () => questions };

  beforeEach(() => {
    asked.length = 0;
    mkdirSync(join(directory, "taken"));
    writeFileSync(join(directory, "taken/file"), "");
  });

  test("what no flag says is asked", async () => {
    await call([], terminal);
    expect(asked).toEqual(["directory", "template", "install with npm"]);
    expect(readFileSync(join(directory, "app/app.ts"), "utf8")).toContain("createServer");
  });

  test("what flags say is not", async () => {
    await call(["app", "-t", "hono", "--no-install"], terminal);
    expect(asked).toEqual([]);
  });

  test("a directory that is no name is asked for one", async () => {
    await call(["App", "-t", "hono", "--no-install"], terminal);
    expect(asked).toEqual(["name"]);
    expect(manifest("App").name).toBe("named");
  });

  test.each([
    [{}, ["--yes"]],
    [{ CI: "true" }, []],
  ])("nothing with env %j and %j", async (env, words) => {
    await call(["--no-install", ...words], { ...terminal, env });
    expect(asked).toEqual([]);
  });

  test("Ctrl-C writes nothing", async () => {
    const askTemplate = async () => {
      throw new Failure("interrupted", "Run it again.", 130);
    };
    const interrupted = { ...terminal, questions: async () => ({ ...questions, askTemplate }) };
    expect((await call(["app"], interrupted)).status).toBe(130);
    expect(readdirSync(directory)).toEqual(["taken"]);
  });
});

test("--help names every flag and template, --version is package.json's", async () => {
  const { stdout } = await call(["--help"]);
  for (const name of Object.keys(TEMPLATES)) expect(stdout).toMatch(new RegExp(`^  ${name} `, "m"));
  for (const flag of ["template", "name", "manager", "install", "no-install", "yes", "cloister"]) {
    expect(stdout).toContain(`--${flag}`);
  }
  expect((await call(["--version"])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
});
