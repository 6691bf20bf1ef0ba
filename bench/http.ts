/**
 * HTTP through a published port, against the same app as a plain process on this machine, with the same client:
 * `node bench/http.ts [--seconds N]`. A table on stderr, one JSON value on stdout.
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { Agent, createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { parseArgs } from "node:util";
import { createEmulatedDevice } from "../emulator/index.ts";
import { launch } from "../launcher/index.ts";
import { HELLO, table, withImage } from "./image.ts";

const CONNECTIONS = [1, 16, 64];

interface Load {
  readonly url: string;
  readonly connections: number;
  readonly seconds: number;
}

interface Measured {
  readonly requestsPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** The client: keep-alive connections, each with one request at a time. */
async function load({ url, connections, seconds }: Load): Promise<Measured> {
  const agent = new Agent({ keepAlive: true, maxSockets: connections });
  const times: number[] = [];
  const get = () =>
    new Promise<void>((resolve, reject) => {
      const start = performance.now();
      request(url, { agent }, (response) => {
        response.resume().once("end", () => {
          times.push(performance.now() - start);
          resolve();
        });
      })
        .once("error", reject)
        .end();
    });
  const loop = async (until: number) => {
    while (performance.now() < until) await get();
  };
  const loops = (length: number, ms: number) => Array.from({ length }, () => loop(performance.now() + ms));
  await Promise.all(loops(connections, 1000));
  times.length = 0;
  await Promise.all(loops(connections, seconds * 1000));
  agent.destroy();
  times.sort((a, b) => a - b);
  const quantile = (q: number) => Number((times[Math.floor(times.length * q)] ?? 0).toFixed(2));
  return {
    requestsPerSecond: Math.round(times.length / seconds),
    p50Ms: quantile(0.5),
    p99Ms: quantile(0.99),
  };
}

/** The app as a plain process. */
async function servePlain(): Promise<void> {
  const { default: app } = (await import(`${HELLO}/app.ts`)) as {
    default: { fetch(request: Request): Response };
  };
  const server = createServer(async (incoming, outgoing) => {
    const response = app.fetch(new Request(`http://localhost${incoming.url}`));
    outgoing.writeHead(response.status, Object.fromEntries(response.headers));
    outgoing.end(await response.text());
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  process.send?.((server.address() as AddressInfo).port);
}

async function inChild<T>(role: string, argument?: object): Promise<{ result: T; stop: () => void }> {
  const child = fork(import.meta.filename, [role, JSON.stringify(argument ?? {})]);
  const [result] = (await once(child, "message")) as [T];
  return { result, stop: () => child.kill() };
}

async function measure(url: string, seconds: number): Promise<(Measured & { connections: number })[]> {
  const rows = [];
  for (const connections of CONNECTIONS) {
    const { result, stop } = await inChild<Measured>("client", { url, connections, seconds });
    stop();
    rows.push({ connections, ...result });
  }
  return rows;
}

async function main(seconds: number): Promise<void> {
  const plain = await inChild<number>("plain");
  const direct = await measure(`http://127.0.0.1:${plain.result}/`, seconds);
  plain.stop();
  const published = await withImage({}, async ({ eifPath }) => {
    using device = createEmulatedDevice();
    const publish = [{ port: 0, vsockPort: 8080 }];
    await using enclave = await launch(eifPath, { device, memoryMiB: 512, publish });
    await enclave.ready;
    // Awaited here: the enclave ends with this scope.
    return await measure(`http://127.0.0.1:${enclave.published[0]?.port}/`, seconds);
  });
  console.error(
    table([
      ...direct.map((row) => ({ server: "plain process", ...row })),
      ...published.map((row) => ({ server: "enclave, published port", ...row })),
    ]),
  );
  console.log(JSON.stringify({ http: { seconds, plainProcess: direct, publishedPort: published } }));
}

const [role, argument] = process.argv.slice(2);
if (role === "plain") await servePlain();
else if (role === "client") process.send?.(await load(JSON.parse(argument ?? "")));
else {
  const { values } = parseArgs({ options: { seconds: { type: "string", default: "5" } } });
  await main(Number(values.seconds));
}
