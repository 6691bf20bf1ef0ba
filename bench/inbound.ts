/**
 * What the relay of a published port costs, against socat (TCP to Unix socket) in its place and against no relay at all:
 * `node bench/inbound.ts [--seconds N] [--rounds N] [--vm]`. `apt-get install socat` first; without it its rows are left out.
 * A table on stderr, one JSON value on stdout.
 *
 * The app is a plain process that listens on a TCP port and on a Unix socket, the same for all; the relay connects to the
 * Unix socket where on an EC2 parent it connects to a vsock port. `--vm` adds the app in an enclave in the emulator.
 */
import { type ChildProcess, fork, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer as createHttp } from "node:http";
import { type AddressInfo, connect, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { createEmulatedDevice } from "../emulator/index.ts";
import { launch } from "../launcher/index.ts";
import { publishPort } from "../launcher/publish.ts";
import { connectUnix, openUnix, pathAddress } from "../linux/unix.ts";
import { median, table, withImage } from "./image.ts";
import { connectRate, holdOpen, type Load, request, stream } from "./load.ts";

const CONNECTIONS = [1, 100, 1000];
/** sysconf(_SC_CLK_TCK), the unit of /proc/pid/stat on every Linux that runs Node. */
const TICKS_PER_SECOND = 100;

/** Ports of one way to the app: HTTP, and bytes without end. */
interface Ports {
  readonly http: number;
  readonly bytes: number;
}

interface Target extends Ports {
  readonly name: string;
  /** Of the relay; their children are counted too. */
  readonly pids: readonly number[];
  stop(): void;
}

// ------------------------------------------------------------------ processes

const CHUNK = Buffer.alloc(64 * 1024, 97);

/** First byte `D`: send until the client is gone. `U`: discard. `E`: echo. */
function serveBytes(): Server {
  return createServer({ noDelay: true }, (socket) => {
    socket.on("error", () => {});
    socket.once("data", (first: Buffer) => {
      if (first[0] === 69) socket.end(first);
      if (first[0] !== 68) {
        socket.resume();
        return;
      }
      const send = () => {
        while (socket.write(CHUNK));
      };
      socket.on("drain", send);
      send();
    });
  });
}

/** The app: each server on a TCP port and on a Unix socket. */
async function serveApp(folder: string): Promise<Ports> {
  const serve = async (make: () => Server, path: string) => {
    const tcp = make().listen({ port: 0, host: "127.0.0.1", backlog: 4096 });
    const unix = make().listen({ path, backlog: 4096 });
    await Promise.all([once(tcp, "listening"), once(unix, "listening")]);
    return (tcp.address() as AddressInfo).port;
  };
  const http = () => createHttp({ keepAliveTimeout: 600_000 }, (_, response) => response.end("Hello"));
  return {
    http: await serve(http, join(folder, "http")),
    bytes: await serve(serveBytes, join(folder, "bytes")),
  };
}

async function serveRelay(folder: string): Promise<Ports> {
  const serve = async (path: string) => {
    const publisher = await publishPort({ port: 0, vsockPort: 1 });
    const address = pathAddress(path);
    publisher.start(async () => {
      const fd = openUnix();
      connectUnix(fd, address);
      return fd;
    });
    return publisher.port;
  };
  return { http: await serve(join(folder, "http")), bytes: await serve(join(folder, "bytes")) };
}

async function inChild<T>(role: string, argument: unknown): Promise<{ result: T; child: ChildProcess }> {
  const child = fork(import.meta.filename, ["--role", role, JSON.stringify(argument)]);
  const [result] = (await once(child, "message")) as [T];
  return { result, child };
}

async function inOwnChild<T>(role: string, argument: unknown): Promise<T> {
  const { result, child } = await inChild<T>(role, argument);
  child.kill();
  return result;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

async function answers(port: number): Promise<void> {
  for (;;) {
    const socket = connect(port, "127.0.0.1");
    const isThere = await new Promise((resolve) =>
      socket.once("connect", () => resolve(true)).once("error", () => resolve(false)),
    );
    socket.destroy();
    if (isThere) return;
  }
}

async function socat(folder: string, blockBytes: number): Promise<Target> {
  const ports = { http: await freePort(), bytes: await freePort() };
  const children = Object.entries(ports).map(([name, port]) =>
    spawn(
      "socat",
      [
        ...["-b", String(blockBytes)],
        `TCP-LISTEN:${port},bind=127.0.0.1,reuseaddr,fork,nodelay,backlog=4096`,
        `UNIX-CONNECT:${join(folder, name)}`,
      ],
      { stdio: "ignore" },
    ),
  );
  await Promise.all(Object.values(ports).map(answers));
  return {
    ...ports,
    name: `socat -b ${blockBytes}`,
    pids: children.map(({ pid = 0 }) => pid),
    stop: () => {
      for (const child of children) child.kill();
    },
  };
}

// ------------------------------------------------------------------ measuring

/** Processes and their descendants, by /proc/PID/task/PID/children (proc(5)). */
function family(pids: readonly number[]): number[] {
  return pids.flatMap((pid) => {
    try {
      const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
      return [pid, ...(children === "" ? [] : family(children.split(" ").map(Number)))];
    } catch {
      // ENOENT, ESRCH: ended meanwhile.
      return [];
    }
  });
}

/** user + system time, of waited-for children too: fields 14 to 17 of proc(5) stat. Seconds. */
function cpuSeconds(pids: readonly number[]): number {
  let ticks = 0;
  for (const pid of family(pids)) {
    try {
      const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
      for (const index of [11, 12, 13, 14]) ticks += Number(fields[index]);
    } catch {
      // As above.
    }
  }
  return ticks / TICKS_PER_SECOND;
}

/** Proportional set size, KiB: shared pages count once. */
function memoryKib(pids: readonly number[]): number {
  return family(pids).reduce((sum, pid) => {
    const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
    return sum + Number(/^Pss:\s+(\d+)/m.exec(text)?.[1] ?? 0);
  }, 0);
}

type Row = Readonly<Record<string, number>>;
type Measure = (target: Target, seconds: number) => Promise<Row>;

function requests(connections: number): Measure {
  return async ({ http, pids }, seconds) => {
    const cpu = cpuSeconds(pids);
    const load: Load = { port: http, connections, seconds };
    const result = await inOwnChild<{ perSecond: number; p50Ms: number; p99Ms: number }>("request", load);
    // Of the warm-up too, a second more.
    const used = ((cpuSeconds(pids) - cpu) * seconds) / (seconds + 1);
    return { ...result, cpuMicros: Math.round((used / (result.perSecond * seconds)) * 1e7) / 10 };
  };
}

function streams(way: "D" | "U", connections: number): Measure {
  return async ({ bytes, pids }, seconds) => {
    const cpu = cpuSeconds(pids);
    const megabytes = await inOwnChild<number>(way, { port: bytes, connections, seconds });
    const used = cpuSeconds(pids) - cpu;
    return {
      mbPerSecond: Math.round(megabytes / seconds),
      cpuSecondsPerGb: Math.round((used / megabytes) * 1e6) / 1e3,
    };
  };
}

const connects: Measure = async ({ bytes, pids }, seconds) => {
  const cpu = cpuSeconds(pids);
  const load: Load = { port: bytes, connections: 32, seconds };
  const result = await inOwnChild<{ perSecond: number; p50Ms: number; p99Ms: number }>("connects", load);
  const used = cpuSeconds(pids) - cpu;
  return { ...result, cpuMicros: Math.round((used / (result.perSecond * seconds)) * 1e6) };
};

const idle: Measure = async ({ bytes, pids }) => {
  const connections = 1000;
  const before = memoryKib(pids);
  const { child } = await inChild<number>("hold", { port: bytes, connections, seconds: 0 });
  const kib = (memoryKib(pids) - before) / connections;
  child.kill();
  await once(child, "exit");
  return { kibPerConnection: Math.round(kib * 10) / 10 };
};

const MEASURES: Readonly<Record<string, Measure>> = {
  ...Object.fromEntries(CONNECTIONS.map((count) => [`requests, ${count} connections`, requests(count)])),
  "throughput to the client, 1 connection": streams("D", 1),
  "throughput to the app, 1 connection": streams("U", 1),
  "throughput to the client, 100 connections": streams("D", 100),
  "throughput to the app, 100 connections": streams("U", 100),
  "connect, 1 byte there and back, close": connects,
  "memory of 1,000 idle connections": idle,
};

/** The middle one of each number. */
function middle(rows: readonly Row[]): Row {
  const keys = Object.keys(rows[0] ?? {});
  return Object.fromEntries(keys.map((key) => [key, median(rows.map((row) => row[key] ?? 0))]));
}

async function compare(targets: readonly Target[], rounds: number, seconds: number, only: string) {
  const results: Record<string, Record<string, Row>> = {};
  for (const [what, measure] of Object.entries(MEASURES)) {
    if (!what.includes(only)) continue;
    const rows = new Map<string, Row[]>();
    for (let round = 0; round < rounds; round++) {
      for (const target of targets) {
        rows.set(target.name, [...(rows.get(target.name) ?? []), await measure(target, seconds)]);
      }
    }
    const summary = Object.fromEntries([...rows].map(([name, list]) => [name, middle(list)]));
    console.error(
      `\n${what}\n${table(Object.entries(summary).map(([server, row]) => ({ server, ...row })))}`,
    );
    results[what] = summary;
  }
  return results;
}

async function main(rounds: number, seconds: number, only: string, withVm: boolean): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "cloister-inbound-"));
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rmSync(folder, { recursive: true, force: true }));
  const app = await inChild<Ports>("app", folder);
  stack.defer(() => void app.child.kill());
  const relay = await inChild<Ports>("relay", folder);
  stack.defer(() => void relay.child.kill());
  const targets: Target[] = [
    { name: "no relay", ...app.result, pids: [], stop: () => {} },
    { name: "cloister", ...relay.result, pids: [relay.child.pid ?? 0], stop: () => {} },
  ];
  if (spawnSync("socat", ["-V"]).status === 0) {
    for (const blockBytes of [8192, 131_072]) {
      const target = await socat(folder, blockBytes);
      stack.defer(() => target.stop());
      targets.push(target);
    }
  } else {
    console.error("no socat here: its rows are left out (apt-get install socat)");
  }
  const relayed = await compare(targets, rounds, seconds, only);
  console.log(
    JSON.stringify({
      inbound: { rounds, seconds, relayed, ...(withVm && { vm: await compareVm(rounds, seconds) }) },
    }),
  );
}

/** The hello example in an enclave, by its published port. */
async function compareVm(rounds: number, seconds: number) {
  return await withImage({}, async ({ eifPath }) => {
    using device = createEmulatedDevice();
    await using enclave = await launch(eifPath, {
      device,
      memoryMiB: 512,
      publish: [{ port: 0, vsockPort: 8080 }],
    });
    await enclave.ready;
    const port = enclave.published[0]?.port ?? 0;
    const target: Target = {
      name: "enclave in the emulator",
      http: port,
      bytes: port,
      pids: [],
      stop: () => {},
    };
    return await compare([target], rounds, seconds, "requests");
  });
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    role: { type: "string" },
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "4" },
    only: { type: "string", default: "" },
    vm: { type: "boolean", default: false },
  },
});
const argument: unknown = JSON.parse(positionals[0] ?? "null");
const ROLES: Readonly<Record<string, () => Promise<unknown>>> = {
  app: () => serveApp(argument as string),
  relay: () => serveRelay(argument as string),
  request: () => request(argument as Load),
  D: () => stream(argument as Load, "D"),
  U: () => stream(argument as Load, "U"),
  connects: () => connectRate(argument as Load),
  hold: () => holdOpen(argument as Load),
};
const role = ROLES[values.role ?? ""];
if (role !== undefined) process.send?.(await role());
else await main(Number(values.rounds), Number(values.seconds), values.only, values.vm);
