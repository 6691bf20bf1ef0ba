/**
 * From `npm create cloister my-app` to the first response, with npm's cache cold and warm, in a VM and without; what the
 * installation takes on disk; what `--help` takes of a processor: `node bench/create.ts`. Our packages come from a registry
 * of this process, all others from the one that npm uses. Tables on stderr, one JSON value on stdout.
 */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import type { LoopEvent } from "../dev/event.ts";
import { pack, ROOT } from "../test/package/install.ts";
import { startRegistry } from "../test/package/registry.ts";
import { median, table } from "./image.ts";

const HELP_RUNS = 9;
const RUNS = [
  { name: "cold cache, VM", cold: true, words: [] },
  { name: "warm cache, VM", cold: false, words: [] },
  { name: "warm cache, --bare", cold: false, words: ["--bare"] },
];

const home = mkdtempSync(join(tmpdir(), "cloister-bench-"));
try {
  const tarballs = [pack(ROOT, home, []), pack(join(ROOT, "create"), home, ["--ignore-scripts"])].map(
    ({ filename }) => join(home, filename),
  );
  await using registry = await startRegistry(tarballs);
  const created = [];
  for (const [index, run] of RUNS.entries()) {
    const folder = join(home, `${index}`);
    mkdirSync(folder);
    created.push(await firstResponse(run, folder, userEnvironment(registry.url)));
  }
  console.error(table(created));
  const project = join(home, "0/my-app");
  const installed = sizes(join(project, "node_modules"));
  console.error(table(installed));
  const helpCpuMs = Math.round(median(Array.from({ length: HELP_RUNS }, () => helpCpu(project))));
  console.error(`--help: ${helpCpuMs} ms of a processor`);
  console.log(JSON.stringify({ created, installed, helpCpuMs }));
} finally {
  rmSync(home, { recursive: true, force: true });
}

/** A user who has used npm for nothing yet. */
function userEnvironment(registry: string): NodeJS.ProcessEnv {
  const { PATH, NODE_EXTRA_CA_CERTS } = process.env;
  return {
    PATH,
    HOME: home,
    npm_config_registry: registry,
    npm_config_cache: join(home, "cache"),
    ...(NODE_EXTRA_CA_CERTS !== undefined && { NODE_EXTRA_CA_CERTS }),
  };
}

async function firstResponse(
  { name, cold, words }: (typeof RUNS)[number],
  cwd: string,
  env: NodeJS.ProcessEnv,
) {
  if (cold) rmSync(join(home, "cache"), { recursive: true, force: true });
  const begin = performance.now();
  const creation = spawn("npm", ["create", "cloister", "my-app", "--", "--yes"], {
    cwd,
    env,
    stdio: "ignore",
  });
  const [status] = await once(creation, "exit");
  if (status !== 0) throw new Error(`npm create: got exit status ${status}, expected 0`);
  const createS = seconds(begin);
  const options = ["--json", "--publish", "127.0.0.1:0:8080", ...words];
  const child = spawn("npm", ["run", "--silent", "dev", "--", ...options], {
    cwd: join(cwd, "my-app"),
    env,
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    for await (const line of createInterface({ input: child.stdout })) {
      const event = JSON.parse(line) as LoopEvent;
      if (event.type === "published") await answered(`http://127.0.0.1:${event.ports[0]?.port}`);
      if (event.type === "serving") break;
    }
    return { name, createS, firstResponseS: seconds(begin) };
  } finally {
    child.kill("SIGTERM");
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  }
}

/** Ask until there is an answer. */
async function answered(url: string): Promise<void> {
  for (;;) {
    try {
      await (await fetch(url)).text();
      return;
    } catch {
      // Refused or reset: no app yet.
      await sleep(5);
    }
  }
}

function seconds(begin: number): number {
  return Math.round((performance.now() - begin) / 100) / 10;
}

/** What each package takes, the largest first; one row for the scope where it has one. */
function sizes(modules: string) {
  const rows = readdirSync(modules)
    .filter((name) => !name.startsWith("."))
    .map((name) => ({ name, ...weigh(join(modules, name)) }))
    .sort((a, b) => b.bytes - a.bytes);
  return rows.map(({ name, bytes, files }) => ({ name, megabytes: Math.round(bytes / 1e5) / 10, files }));
}

function weigh(path: string): { bytes: number; files: number } {
  const stat = lstatSync(path);
  if (!stat.isDirectory()) return { bytes: stat.size, files: 1 };
  const parts = readdirSync(path).map((name) => weigh(join(path, name)));
  return parts.reduce((a, b) => ({ bytes: a.bytes + b.bytes, files: a.files + b.files }), {
    bytes: 0,
    files: 0,
  });
}

/** Milliseconds, of all its threads. */
function helpCpu(project: string): number {
  const told = 'process.on("exit", () => console.error(JSON.stringify(process.cpuUsage())))';
  const hook = `data:text/javascript,${encodeURIComponent(told)}`;
  const words = ["--import", hook, join(project, "node_modules/.bin/cloister"), "--help"];
  // The shell joins both streams; the numbers are the last line.
  const output = execFileSync("sh", ["-c", '"$@" 2>&1', "sh", process.execPath, ...words], {
    encoding: "utf8",
  });
  const { user, system } = JSON.parse(output.trim().split("\n").at(-1) ?? "");
  return (user + system) / 1000;
}
