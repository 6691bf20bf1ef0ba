/**
 * Outbound connections of one enclave, by real packages to real servers on the parent. The guest half is egress/app.mjs:
 * a path for each use of the network. The servers listen on free ports of 127.0.0.1; the parent is told by name where
 * they are, as in development. A second VM has a parent that carries nothing.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import * as dns from "node:dns/promises";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
} from "node:fs";
import { createServer as createHttp, type RequestListener } from "node:http";
import { createServer as createHttps } from "node:https";
import { createRequire } from "node:module";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text as textOf } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { LocalEgress } from "../../launcher/index.ts";
import { Resolver } from "../../launcher/resolver.ts";
import type { EgressRuleText } from "../../packer/config.ts";
import { build } from "../../packer/index.ts";
import { type BlackHole, openBlackHole } from "../launcher/blackhole.ts";
import {
  domain,
  type NameServer,
  startNameServer,
  text,
  u16,
  u32,
  type Zone,
} from "../launcher/nameserver.ts";
import { whyNoPages } from "../pages.ts";
import { CACHE, ROOT, type Running, start } from "./enclave.ts";

const directory = mkdtempSync(join(tmpdir(), "cloister-egress-"));
const eif = join(directory, "egress.eif");
const RULES: readonly EgressRuleText[] = [
  "web.test:80",
  "tls.test:443",
  "untrusted.test:443",
  "refused.test:80",
  "reset.test:80",
  "echo.test:7",
  "*.sub.test:*",
  "10.99.0.5:7",
  "[2001:db8::1]:7",
  "169.254.169.254:80",
  "greeting.test:25",
  "pg.test:5432",
  "redis.test:6379",
  "missing.invalid:80",
  "two.test:*",
  "dead.test:7",
  "records.test:5432",
  "*.records.test:5432",
];

// ---------------------------------------------------------------- host half: servers

/** ws has no types of its own. */
const { WebSocketServer } = createRequire(import.meta.url)("ws") as {
  readonly WebSocketServer: new (options: {
    readonly server: Server;
  }) => { on(event: "connection", listener: (socket: Echo) => void): void };
};
interface Echo {
  on(event: "message", listener: (data: Buffer) => void): void;
  send(data: Buffer, options: { readonly binary: boolean }): void;
}

const servers: Server[] = [];
const sockets = new Set<Socket>();
const children: ChildProcess[] = [];
const holes: BlackHole[] = [];
let twoPort = 0;
let nameServer: NameServer | undefined;

async function listen(server: Server): Promise<{ address: string; port: number }> {
  servers.push(server);
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("error", () => {}).once("close", () => sockets.delete(socket));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { address: "127.0.0.1", port: (server.address() as AddressInfo).port };
}

const objects = new Map<string, Buffer>();
let connections = 0;
const ids = new WeakMap<Socket, number>();

/** A web site, an object store and a JSON-RPC node. */
const site: RequestListener = (request, response) => {
  const { url = "", method, socket } = request;
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    const body = Buffer.concat(chunks);
    if (url === "/length") response.end(String(body.length));
    else if (url === "/big") response.end(Buffer.alloc(5_000_000));
    else if (url === "/trickle") trickle(response);
    else if (url === "/socket") response.end(String(idOf(socket)));
    else if (url === "/rpc") response.end(rpc(JSON.parse(body.toString())));
    else if (url === "/kms/" || url === "/kms") response.end(kms(request.headers["x-amz-target"], body));
    else if (url.startsWith("/s3/") && method === "PUT") {
      objects.set(url.split("?")[0] ?? "", unchunked(body, request.headers["content-encoding"]));
      response.setHeader("etag", '"1"').end();
    } else if (url.startsWith("/s3/")) response.end(objects.get(url.split("?")[0] ?? ""));
    else if (url !== "/stall") response.end(`site ${url} ${request.headers.host}`);
  });
};

function trickle(response: NodeJS.WritableStream & { destroyed?: boolean }): void {
  const timer = setInterval(() => response.write("."), 1000);
  response.once("close", () => clearInterval(timer));
  response.write(".");
}

function idOf(socket: Socket): number {
  const id = ids.get(socket) ?? ++connections;
  ids.set(socket, id);
  return id;
}

/** AWS KMS API, Encrypt and Decrypt: the key is a word before the text. */
function kms(target: string | string[] | undefined, body: Buffer): string {
  const { Plaintext = "", CiphertextBlob = "" } = JSON.parse(body.toString()) as Record<string, string>;
  const base64 = (text: string) => Buffer.from(text).toString("base64");
  const text = (blob: string) => Buffer.from(blob, "base64").toString();
  return JSON.stringify(
    target === "TrentService.Encrypt"
      ? { KeyId: "a", CiphertextBlob: base64(`sealed ${text(Plaintext)}`) }
      : { KeyId: "a", Plaintext: base64(text(CiphertextBlob).replace("sealed ", "")) },
  );
}

function rpc({ id, method }: { id: number; method: string }): string {
  return JSON.stringify({ jsonrpc: "2.0", id, result: method === "eth_chainId" ? "0x1" : "0x10" });
}

/** The SDK's aws-chunked bodies (Amazon S3 API, "Transferring payload in multiple chunks"): one chunk and trailers. */
function unchunked(body: Buffer, encoding: string | undefined): Buffer {
  if (encoding !== "aws-chunked") return body;
  const end = body.indexOf("\r\n");
  return body.subarray(end + 2, end + 2 + Number.parseInt(body.subarray(0, end).toString(), 16));
}

/** A key and a certificate of its own that is its authority. */
function certificate(name: string): { key: string; cert: string } {
  const [key, cert] = [join(directory, `${name}.key`), join(directory, `${name}.pem`)];
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  const subject = ["-subj", `/CN=${name}`, "-addext", `subjectAltName=DNS:${name}`];
  execFileSync("openssl", ["req", "-x509", ...curve, ...subject, "-keyout", key, "-out", cert], {
    stdio: "ignore",
  });
  return { key: readFileSync(key, "utf8"), cert: readFileSync(cert, "utf8") };
}

/** Newest of Debian's installed versions. */
const postgres = existsSync("/usr/lib/postgresql")
  ? readdirSync("/usr/lib/postgresql")
      .map((version) => `/usr/lib/postgresql/${version}/bin`)
      .at(-1)
  : undefined;
const redis = existsSync("/usr/bin/redis-server") ? "/usr/bin/redis-server" : undefined;

/** A port that was free a moment ago; both servers take a number only. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

/** PostgreSQL does not run as root. */
function databaseUser(): { uid?: number; gid?: number } {
  if (process.getuid?.() !== 0) return {};
  const [uid = 0, gid = 0] = ["-u", "-g"].map((flag) =>
    Number(execFileSync("id", [flag, "postgres"]).toString()),
  );
  return { uid, gid };
}

async function startPostgres(bin: string): Promise<{ address: string; port: number }> {
  const user = databaseUser();
  const home = join(directory, "pg");
  mkdirSync(home);
  if (user.uid !== undefined) {
    chmodSync(directory, 0o711);
    chownSync(home, user.uid, user.gid ?? 0);
  }
  const options = { ...user, cwd: home, env: { PATH: "/usr/bin:/bin", LC_ALL: "C" } };
  execFileSync(`${bin}/initdb`, ["-D", "data", "-U", "postgres", "-A", "trust", "-N"], {
    ...options,
    stdio: "ignore",
  });
  const port = await freePort();
  const words = ["-D", "data", "-p", String(port), "-k", "", "-h", "127.0.0.1", "-F"];
  await serveChild(
    spawn(`${bin}/postgres`, words, { ...options, stdio: ["ignore", "ignore", "pipe"] }),
    "ready to accept",
  );
  return { address: "127.0.0.1", port };
}

async function startRedis(path: string): Promise<{ address: string; port: number }> {
  const port = await freePort();
  const words = ["--port", String(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory];
  await serveChild(spawn(path, words, { stdio: ["ignore", "pipe", "ignore"] }), "Ready to accept");
  return { address: "127.0.0.1", port };
}

async function serveChild(child: ChildProcess, marker: string): Promise<void> {
  children.push(child);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  let said = "";
  (child.stdout ?? child.stderr)?.on("data", (chunk) => {
    said += chunk;
    if (said.includes(marker)) resolve();
  });
  child.once("close", () => reject(new Error(`${child.spawnfile} ended: ${said}`)));
  await promise;
}

/** By type number (RFC 1035 §3.2.2, RFC 3596, 2782, 8659). */
const RECORDS: Readonly<Record<number, Uint8Array>> = {
  1: Buffer.of(10, 1, 2, 3),
  2: domain("ns.test"),
  6: Buffer.concat([domain("ns.test"), domain("root.test"), u32(1, 2, 3, 4, 5)]),
  15: Buffer.concat([u16(10), domain("mx.test")]),
  16: Buffer.concat([text("one"), text("two")]),
  257: Buffer.concat([Buffer.of(0), text("issue"), Buffer.from("ca.test")]),
};
const ANY = 255;
const zone: Zone = (name, type) => {
  if (name === "_pg._tcp.records.test")
    return [{ type, data: Buffer.concat([u16(1, 2, 5432), domain("pg.test")]) }];
  if (name === "alias.records.test") return [{ type, data: domain("records.test") }];
  if (name !== "records.test") return undefined;
  return (type === ANY ? [1, 16] : [type]).map((each) => ({
    type: each,
    data: RECORDS[each] ?? Buffer.alloc(0),
  }));
};

/** Listens on both loopbacks; IPv4's answers nothing. */
async function startTwo(): Promise<number> {
  const server = createServer((socket) => socket.pipe(socket)).listen(0, "::1");
  servers.push(server);
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  holes.push(await openBlackHole("127.0.0.1", port));
  return port;
}

const resolver = new Resolver(async (name) => {
  const both = [
    { address: "127.0.0.1", family: 4 },
    { address: "::1", family: 6 },
  ];
  return name === "two.test" || name === "records.test" ? both : await dns.lookup(name, { all: true });
});

async function startServers(): Promise<LocalEgress[]> {
  const trusted = certificate("tls.test");
  const web = createHttp(site);
  const sites = new WebSocketServer({ server: web });
  sites.on("connection", (socket) => socket.on("message", (data) => socket.send(data, { binary: false })));
  const echo = await listen(createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket)));
  twoPort = await startTwo();
  const dead = await openBlackHole("127.0.0.1");
  holes.push(dead);
  return [
    { host: "two.test", port: twoPort },
    { host: "dead.test", port: 7, to: { address: "127.0.0.1", port: dead.port } },
    { host: "web.test", port: 80, to: await listen(web) },
    { host: "tls.test", port: 443, to: await listen(createHttps(trusted, site)) },
    { host: "untrusted.test", port: 443, to: await listen(createHttps(certificate("untrusted.test"), site)) },
    { host: "refused.test", port: 80, to: { address: "127.0.0.1", port: await freePort() } },
    {
      host: "reset.test",
      port: 80,
      to: await listen(createServer((s) => s.once("data", () => s.resetAndDestroy()))),
    },
    ...[
      ["echo.test", 7],
      ["a.b.sub.test", 4242],
      ["10.99.0.5", 7],
      ["2001:db8::1", 7],
    ].map(([host, port]) => ({ host, port, to: echo }) as LocalEgress),
    {
      host: "greeting.test",
      port: 25,
      to: await listen(createServer((socket) => socket.end("220 greeting"))),
    },
    ...(postgres === undefined ? [] : [{ host: "pg.test", port: 5432, to: await startPostgres(postgres) }]),
    ...(redis === undefined ? [] : [{ host: "redis.test", port: 6379, to: await startRedis(redis) }]),
  ];
}

// ---------------------------------------------------------------- one enclave with a proxy, one without

let running: Running;

interface Failure {
  readonly code?: string;
  readonly message: string;
  readonly cause?: Failure;
}
interface Outcome {
  readonly value?: unknown;
  readonly error?: Failure;
}

async function use(path: string, url = running.url): Promise<Outcome> {
  return (await (await fetch(`${url}/${path}`)).json()) as Outcome;
}

beforeAll(async () => {
  const local = await startServers();
  const project = join(ROOT, "test/e2e/egress");
  const ca = [join(directory, "tls.test.pem")];
  await build({
    directory: project,
    entry: "app.mjs",
    output: eif,
    overrides: { egress: RULES, ca, memory: "1G" },
    cacheDirectory: CACHE,
  });
  nameServer = await startNameServer(zone);
  const records = new dns.Resolver({ timeout: 5_000, tries: 2 });
  records.setServers([nameServer.address]);
  running = await start(eif, { egress: { local, resolver, records } });
  await running.enclave.ready;
});

afterAll(async () => {
  await running?.[Symbol.asyncDispose]();
  for (const child of children) child.kill("SIGKILL");
  await Promise.all(holes.map((hole) => hole.close()));
  nameServer?.close();
  for (const socket of sockets) socket.destroy();
  for (const server of servers) server.close();
  await Promise.all(children.map((child) => child.exitCode ?? child.signalCode ?? once(child, "close")));
  rmSync(directory, { recursive: true, force: true });
});

describe("unmodified", () => {
  test.each<[string, unknown]>([
    ["fetch", "site /fetch web.test"],
    ["fetch-tls", "site /fetch tls.test"],
    ["fetch-post", "1000000"],
    ["fetch-big", 5_000_000],
    ["fetch-many", ["site /many web.test"]],
    ["fetch-loopback", "private"],
    ["http-keepalive", true],
    ["https", "site /https tls.test"],
    ["net", "hello"],
    ["net-wildcard", "hello"],
    ["net-ipv4", "hello"],
    ["net-ipv6", "hello"],
    ["net-single", "hello"],
    ["net-lookup", "hello"],
    ["net-by-address", "hello"],
    ["net-greeting", "220 greeting"],
    ["net-closed", "closed"],
    ["net-abandoned", "closed"],
    ["net-timeout", false],
    ["tls", [true, "site /tls tls.test"]],
    ["tls-over-net", [true, "site /upgraded tls.test"]],
    ["ws", "over ws"],
    ["undici", "site /undici tls.test"],
    ["axios", "site /axios tls.test"],
    ["s3", "an object"],
    ["kms", ["sealed a secret", "a secret"]],
    ["viem", [1, "16"]],
    ["worker", "site /worker tls.test"],
    ["worker-options", "site /worker tls.test"],
    ["child", "site /child tls.test"],
    ["udp-loopback", "inside"],
  ])("%s", async (path, value) => expect(await use(path)).toEqual({ value }));

  test.skipIf(postgres === undefined)("pg to a PostgreSQL", async () => {
    expect(await use("pg")).toEqual({ value: { total: 50_005_000, echoed: "ä" } });
  });

  test.skipIf(redis === undefined)("ioredis to a Redis", async () => {
    expect(await use("ioredis")).toEqual({ value: ["value", 41, 42] });
  });

  test("a socket says whom it is connected to", async () => {
    const address = expect.stringMatching(/^198\.1[89]\.\d+\.\d+$/);
    expect(await use("net-options")).toEqual({
      value: { remoteAddress: address, remotePort: 7, remoteFamily: "IPv4" },
    });
  });

  test("of two addresses the first is dead: the second is connected to", async () => {
    expect(await use(`net-two?port=${twoPort}`)).toEqual({ value: ["IPv6", "hello"] });
  });

  test("records of names", async () => {
    expect(await use("dns-records")).toEqual({
      value: {
        families: [true, true],
        any: [true, ["one", "two"]],
        txt: [["one", "two"]],
        mx: [["mx.test", 10]],
        srv: [["pg.test", 5432]],
        ns: ["ns.test"],
        soa: "ns.test",
        caa: ["ca.test"],
        cname: ["records.test"],
      },
    });
  });

  test("names", async () => {
    expect(await use("dns")).toEqual({
      value: { stable: true, family: 4, reverse: ["echo.test"], resolver: 0, local: "127.0.0.1" },
    });
  });
});

describe("fails as Node's network does", () => {
  test.each([
    ["fetch-refused", "ECONNREFUSED"],
    ["fetch-reset", "UND_ERR_SOCKET|ECONNRESET"],
    ["net-reset", "ECONNRESET"],
    ["fetch-missing", "ENOTFOUND|EAI_AGAIN"],
    ["dns-missing", "ENOTFOUND|EAI_AGAIN"],
    ["dns-none", "ENOTFOUND"],
    // DOMException.TIMEOUT_ERR, the signal's reason.
    ["net-abort", "23"],
    ["fetch-untrusted", "DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN"],
    ["fetch-metadata", "EACCES"],
    ["udp", "EPROTONOSUPPORT"],
  ])("%s: %s", async (path, codes) => {
    const { error } = await use(path);
    expect(codes.split("|")).toContain(String(error?.cause?.code ?? error?.code));
  });

  test.each([
    // DOMException.TIMEOUT_ERR.
    ["fetch-stalled", "23", 1],
    ["fetch-trickle", "23", 4],
    ["http-timeout", "TIMED", 1],
  ])("%s ends when the app says so", async (path, outcome, seconds) => {
    const { value } = (await use(path)) as { value: { outcome: string | number; seconds: number } };
    expect(String(value.outcome)).toBe(outcome);
    expect(value.seconds).toBeLessThan(seconds + 20);
  });
});

describe("what is not listed", () => {
  test.each([
    ["fetch-denied", "connect evil.test:443", 'egress: ["evil.test:443"]'],
    ["fetch-denied-port", "connect web.test:81", 'egress: ["web.test:81"]'],
    ["net-denied", "connect 10.99.0.6:7", 'egress: ["10.99.0.6:7"]'],
    ["dns-denied", "resolve evil.test", 'egress: ["evil.test:PORT"]'],
    ["dns-denied-resolve", "resolve evil.test", 'egress: ["evil.test:PORT"]'],
  ])("%s names the line to add, and logs it", async (path, what, line) => {
    const { error } = await use(path);
    const denial = error?.cause ?? error;
    expect(denial?.code).toBe("E_EGRESS_DENIED");
    expect(denial?.message).toContain(what);
    expect(denial?.message).toContain(line);
    await expect.poll(() => running.logs()).toContain(`E_EGRESS_DENIED: ${denial?.message}`);
  });

  test("the parent says what it refused", async () => {
    await use("fetch-metadata");
    const refusals = running.events.flatMap((event) => (event.type === "egress" ? event.reason : []));
    expect(refusals).toContainEqual(expect.stringContaining("169.254.169.254:80: refused"));
    await expect.poll(() => running.logs()).toContainEqual(expect.stringContaining("169.254.169.254:80"));
  });

  test("a datagram is explained in the log", async () => {
    await use("udp");
    await expect
      .poll(() => running.logs())
      .toContainEqual(expect.stringContaining("E_EGRESS_UDP: UDP to 8.8.8.8:53"));
  });
});

test("a parent that carries nothing: every way out fails at once and says what is missing", async () => {
  await using alone = await start(eif, { egress: false });
  await alone.enclave.ready;
  for (const path of ["fetch", "net", "net-ipv4", "dns-missing"]) {
    const { error } = await use(path, alone.url);
    // fetch has an error of its own around it.
    const failure = path === "fetch" ? error?.cause : error;
    expect([path, failure?.code]).toEqual([path, "E_EGRESS_PROXY"]);
    expect(failure?.message).toContain("got ECONNRESET from the parent's vsock port, expected its proxy");
  }
  expect(await use("fetch-loopback", alone.url)).toEqual({ value: "private" });
});

test("cloister proxy carries for a launcher that does not, and a killed one can be started again", async (context) => {
  const reason = whyNoPages(128);
  if (reason !== undefined) context.skip(reason);
  const web = await listen(createHttp(site));
  const script = fileURLToPath(new URL("carried.ts", import.meta.url));
  const words = [join(ROOT, "cli/entry.ts"), "emulate", "--", process.execPath, script];
  const child = spawn(process.execPath, [...words, eif, `127.0.0.1:${web.port}`], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  children.push(child);
  const [stdout, stderr] = await Promise.all([textOf(child.stdout), textOf(child.stderr)]);
  expect(stderr).toBe("");
  const absent = { error: { cause: { code: "E_EGRESS_PROXY" } } };
  const page = { value: "site /fetch web.test" };
  const cut = { value: expect.stringMatching(/^(UND_ERR_SOCKET|ECONNRESET)$/) };
  expect(JSON.parse(stdout)).toMatchObject([absent, page, { value: 1 }, cut, absent, page, 0]);
});
