/**
 * What of Node works in an enclave: one VM whose app (compatibility/app.ts) has a check for each name below. The rows of
 * docs/compatibility.md name them.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { build } from "../../packer/index.ts";
import { CACHE, ROOT, type Running, start } from "./enclave.ts";

const CHECKS = [
  "fs: files, folders, links, permissions",
  "fs: streams and file handles",
  "fs: watch",
  "/tmp: as large as configured, ENOSPC beyond it",
  "/tmp: programs that an app unpacks can run",
  "/dev/shm and /run: limited",
  "sqlite: in memory",
  "sqlite: a file with a write-ahead log",
  "os: name, processors, memory",
  "os: network interfaces",
  "os: user and folders",
  "process: memory, processor time, resources",
  "process: arguments, environment, folder, standard streams",
  "process: signals to itself and to children",
  "process: uncaughtException and unhandledRejection handlers",
  "process: warnings and reports",
  "child_process: Node itself, by path and by name",
  "child_process: fork with messages",
  "child_process: no shell and no other program, and the error says so",
  "child_process: a folder that is missing is not taken for a missing program",
  "worker_threads: messages, shared memory, transfer",
  "worker_threads: BroadcastChannel",
  "cluster: workers share a port",
  "modules: top-level await, import() and JSON",
  "modules: require and import.meta",
  "modules: stack traces name the app's own files",
  "Intl: all languages",
  "time zones: TZ, Intl and Temporal",
  "time: timers and clocks",
  "WebAssembly: compiles and runs",
  "async_hooks: AsyncLocalStorage",
  "perf_hooks: observers and event-loop delay",
  "diagnostics_channel: published messages arrive",
  "inspector: a session in the process, and a port",
  "v8 and vm: heap statistics, structured clones, contexts",
  "readline: lines of a stream",
  "stream/web: transforms and text",
  "url and util: what libraries take for granted",
  "events: EventTarget, AbortSignal, once",
  "crypto: hashes, MACs, key derivation, random",
  "crypto: ciphers, signatures, key agreement, certificates",
  "crypto: ML-KEM and ML-DSA",
  "webcrypto: generate, sign, encrypt, derive, wrap",
  "zlib: gzip, brotli, zstd",
  "net: Unix sockets",
  "http: a server and a client of its own, streaming",
  "http2: cleartext, many streams",
  "tls: pre-shared keys, no certificate",
  "fetch: headers, bodies, forms",
  "WebSocket: the global client",
];

const directory = mkdtempSync(join(tmpdir(), "cloister-compatibility-"));
let running: Running;

beforeAll(async () => {
  const { eifPath } = await build({
    directory: join(ROOT, "test/e2e/compatibility"),
    entry: "app.ts",
    output: join(directory, "compatibility.eif"),
    overrides: { memory: "512M", tmp: "48M", env: { GREETING: "hello" } },
    cacheDirectory: CACHE,
  });
  running = await start(eifPath, {});
  await running.enclave.ready;
});

afterAll(async () => {
  await running?.[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true, force: true });
});

async function ask(path: string): Promise<unknown> {
  return await (await fetch(`${running.url}/${encodeURIComponent(path)}`)).json();
}

test("no check is left out", async () => expect(await ask("")).toEqual(CHECKS));

test.each(CHECKS)("%s", async (name) => expect(await ask(name)).toBe("held"));

test("none of it ended the app, and its output is in the log", async () => {
  expect(running.events.filter((event) => event.type === "exit")).toEqual([]);
  await expect.poll(() => running.logs()).toContain("a line of the app");
});
