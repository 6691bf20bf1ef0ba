/**
 * What the parent's proxy costs outbound connections, against socat (Unix socket to TCP) in its place and against no proxy
 * at all: `node bench/outbound.ts [--seconds N] [--rounds N] [--only TEXT] [--quick] [--vm]`. `apt-get install socat` first; without
 * it its rows are left out. A table on stderr, one JSON value on stdout.
 *
 * The remote is a plain process that listens on a TCP port, the same for all; clients connect to a Unix socket where an
 * enclave connects to a vsock port, and tell the proxy where to, which socat knows. `--vm` adds an app in an enclave in the
 * emulator that fetches from the remote, against the same app as a plain process.
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { createEmulatedDevice } from "../emulator/index.ts";
import { encodeOutboundRequest } from "../format/outbound.ts";
import { DescriptorRelay } from "../launcher/descriptors.ts";
import type { VsockStream } from "../launcher/device.ts";
import { EgressProxy } from "../launcher/egress.ts";
import { launch } from "../launcher/index.ts";
import { buildApp } from "../test/e2e/enclave.ts";
import { compare, type Extent, extentOf, inChild, OPTIONS, type Target } from "./compare.ts";
import { median, table } from "./image.ts";
import type { AppPorts } from "./role.ts";

const HOST = "remote.test";
const PORTS = { http: 80, bytes: 9 } as const;

interface Place {
  readonly folder: string;
  readonly ports: AppPorts;
}

/** The proxy on a Unix socket. */
async function serveProxy({ folder, ports }: Place): Promise<string> {
  const proxy = new EgressProxy({
    descriptors: new DescriptorRelay(),
    rules: [`${HOST}:*`],
    local: (["http", "bytes"] as const).map((name) => ({
      host: HOST,
      port: PORTS[name],
      to: { address: "127.0.0.1", port: ports[name] },
    })),
  });
  const path = join(folder, "proxy");
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    void proxy.accept(socket as unknown as VsockStream);
  }).listen({ path, backlog: 4096 });
  await once(server, "listening");
  return path;
}

function greeting(name: keyof typeof PORTS): string {
  const request = encodeOutboundRequest({ type: "connect", host: HOST, port: PORTS[name], family: 0 });
  return Buffer.from(request).toString("base64");
}

async function socat({ folder, ports }: Place, blockBytes: number): Promise<Target> {
  const path = (name: string) => join(folder, `socat-${blockBytes}-${name}`);
  const children = (["http", "bytes"] as const).map((name) =>
    spawn(
      "socat",
      [
        ...["-b", String(blockBytes)],
        `UNIX-LISTEN:${path(name)},fork,backlog=4096`,
        `TCP:127.0.0.1:${ports[name]},nodelay`,
      ],
      { stdio: "ignore" },
    ),
  );
  while (!["http", "bytes"].every((name) => existsSync(path(name)))) await sleep(10);
  return {
    name: `socat -b ${blockBytes}`,
    http: { path: path("http") },
    bytes: { path: path("bytes") },
    pids: children.map(({ pid = 0 }) => pid),
    stop: () => {
      for (const child of children) child.kill();
    },
  };
}

// --------------------------------------------------------------- in an enclave

/** Fetches so often over so many connections and says how long each took. */
const FETCHER = `
import { Agent, get } from "node:http";

export default {
  async fetch(request: Request): Promise<Response> {
    const [count, connections, host, port] = new URL(request.url).searchParams.values();
    const agent = new Agent({ keepAlive: true, maxSockets: Number(connections) });
    const times: number[] = [];
    let left = Number(count);
    const one = () => new Promise<void>((resolve, reject) => {
      const begin = performance.now();
      get({ host, port, agent }, (response) => response.resume().once("end", () => {
        times.push(performance.now() - begin);
        resolve();
      })).once("error", reject);
    });
    const loop = async () => {
      while (left-- > 0) await one();
    };
    await Promise.all(Array.from({ length: Number(connections) }, loop));
    agent.destroy();
    return Response.json(times);
  },
};`;

/** Of a round in an enclave. */
const REQUESTS = 1000;

async function compareVm(ports: AppPorts, rounds: number) {
  const app = await buildApp({ "app.ts": FETCHER }, { egress: [`${HOST}:80`], memory: "512M" });
  try {
    using device = createEmulatedDevice();
    const to = { address: "127.0.0.1", port: ports.http };
    await using enclave = await launch(app.eifPath, {
      device,
      publish: [{ port: 0, vsockPort: 8080 }],
      egress: { local: [{ host: HOST, port: 80, to }] },
    });
    await enclave.ready;
    const rows: { connections: number; perSecond: number; p50Ms: number; p99Ms: number }[] = [];
    for (const connections of [1, 100]) {
      const all: { perSecond: number; p50Ms: number; p99Ms: number }[] = [];
      for (let round = 0; round <= rounds; round++) {
        const url = `http://127.0.0.1:${enclave.published[0]?.port}/?count=${REQUESTS}&c=${connections}&host=${HOST}&port=80`;
        const begin = performance.now();
        const times = ((await (await fetch(url)).json()) as number[]).sort((a, b) => a - b);
        const seconds = (performance.now() - begin) / 1000;
        // The first round warms up.
        if (round > 0)
          all.push({
            perSecond: REQUESTS / seconds,
            p50Ms: times[REQUESTS * 0.5] ?? 0,
            p99Ms: times[REQUESTS * 0.99] ?? 0,
          });
      }
      const middle = (key: "perSecond" | "p50Ms" | "p99Ms") =>
        Math.round(median(all.map((row) => row[key])) * 100) / 100;
      rows.push({
        connections,
        perSecond: middle("perSecond"),
        p50Ms: middle("p50Ms"),
        p99Ms: middle("p99Ms"),
      });
    }
    console.error(`\nrequests from an enclave in the emulator\n${table(rows)}`);
    return rows;
  } finally {
    app.remove();
  }
}

async function main(extent: Extent, withVm: boolean): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "cloister-outbound-"));
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rmSync(folder, { recursive: true, force: true }));
  const app = await inChild<AppPorts>("app", folder);
  stack.defer(() => void app.child.kill());
  const place = { folder, ports: app.result };
  const proxy = await inChild<string>("proxy", place, import.meta.filename);
  stack.defer(() => void proxy.child.kill());
  const path = proxy.result;
  const targets: Target[] = [
    {
      name: "no proxy",
      http: { port: app.result.http },
      bytes: { port: app.result.bytes },
      pids: [],
      stop: () => {},
    },
    {
      name: "cloister",
      http: { path, greeting: greeting("http") },
      bytes: { path, greeting: greeting("bytes") },
      pids: [proxy.child.pid ?? 0],
      stop: () => {},
    },
  ];
  if (spawnSync("socat", ["-V"]).status === 0) {
    for (const blockBytes of [8192, 131_072]) {
      const target = await socat(place, blockBytes);
      stack.defer(() => target.stop());
      targets.push(target);
    }
  } else {
    console.error("no socat here: its rows are left out (apt-get install socat)");
  }
  const relayed = await compare(targets, extent);
  const vm = withVm ? { vm: await compareVm(app.result, extent.rounds) } : {};
  console.log(JSON.stringify({ outbound: { ...extent, relayed, ...vm } }));
}

const { values, positionals } = parseArgs({ allowPositionals: true, options: OPTIONS });
if (values.role === "proxy") process.send?.(await serveProxy(JSON.parse(positionals[0] ?? "") as Place));
else await main(extentOf(values), values.vm);
