/**
 * What only a machine of its own shows: orphans, addresses, the real AF_VSOCK, debug mode's console, the drain
 * at the end. One VM in debug mode with a plain program, whose TCP server is reached over vsock.
 */
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { VsockStream } from "../../launcher/index.ts";
import { PRELOAD } from "../../runtime/network.ts";
import { type BuiltApp, buildApp, type Running, start } from "../e2e/enclave.ts";

// ---------------------------------------------------------------- guest half

const APP = `
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { networkInterfaces, hostname } from "node:os";
import { isDebug, vsock } from "cloister/runtime";

/** Processes but this one and the kernel's threads, which have no command line; a zombie has none either, but its state. */
function others(): { zombies: string[]; alive: string[] } {
  const found = { zombies: [] as string[], alive: [] as string[] };
  for (const pid of readdirSync("/proc").filter((name) => /^\\d+$/.test(name) && name !== "1")) {
    try {
      const isZombie = / Z /.test(readFileSync("/proc/" + pid + "/stat", "utf8"));
      const command = readFileSync("/proc/" + pid + "/cmdline", "utf8");
      if (isZombie) found.zombies.push(pid);
      else if (command !== "") found.alive.push(command);
    } catch {
      // It ended meanwhile.
    }
  }
  return found;
}

/** A child whose own child outlives it and ends later; resolves with the child's status. */
async function orphan(status: number): Promise<number> {
  const grandchild = "setTimeout(() => {}, 50)";
  const child = spawn(process.execPath, ["-e",
    "require('node:child_process').spawn(process.execPath, ['-e', " + JSON.stringify(grandchild) + "], " +
    "{ detached: true, stdio: 'ignore' }).unref(); process.exitCode = " + status], { stdio: "ignore" });
  const [code] = await once(child, "exit");
  return code;
}

const code = (promise: Promise<unknown>) => promise.then(() => "connected", (error) => typeof error.code === "string" ? error.code : error.name);

const open: { close(callback?: () => void): void }[] = [];
const routes: Record<string, (url: URL) => unknown> = {
  "/now": () => Date.now(),
  "/orphans": async () => {
    const statuses = await Promise.all([3, 0, 7].map(orphan));
    const deadline = Date.now() + 60_000;
    const isBusy = ({ zombies, alive }: ReturnType<typeof others>) => zombies.length + alive.length > 0;
    while (isBusy(others()) && Date.now() < deadline) await new Promise((next) => setTimeout(next, 20));
    return { statuses, ...others() };
  },
  "/place": () => ({
    debug: isDebug(), hostname: hostname(), argv: process.argv, env: process.env,
    addresses: networkInterfaces().lo?.map(({ cidr }) => cidr), stdin: readFileSync(0, "utf8"),
  }),
  "/vsock": async (url) => {
    const port = Number(url.searchParams.get("port"));
    const stream = await vsock.connect({ cid: 3, port, timeoutMs: 20_000 });
    stream.end("ping");
    let heard = "";
    for await (const chunk of stream) heard += chunk;
    const aborter = new AbortController();
    const aborted = code(vsock.connect({ cid: 77, port: 1, signal: aborter.signal }));
    aborter.abort();
    return {
      heard, peer: [stream.remoteCid, stream.remotePort],
      refused: await code(vsock.connect({ cid: 3, port: 4999 })),
      lost: await code(vsock.connect({ cid: 77, port: 1, timeoutMs: 300 })),
      aborted: await aborted,
    };
  },
  "/taken": async () => {
    const listener = vsock.listen({ port: 5555 }, (stream) => {
      stream.on("error", () => {});
      stream.end("from " + stream.remoteCid);
    });
    open.push(listener);
    try {
      vsock.listen({ port: 5555 }, () => {});
    } catch (error) {
      return { code: (error as NodeJS.ErrnoException).code, port: listener.port };
    }
  },
  "/private": async () => {
    const server = createServer().listen(6000, "127.0.0.1");
    open.push(server);
    await once(server, "listening");
    return "listening";
  },
  "/flood": () => {
    for (let i = 0; i < 3_000; i++) console.log("flood " + i + " " + "x".repeat(100));
    return "flooded";
  },
};

const server = createServer(async (request, response) => {
  const url = new URL(request.url ?? "/", "http://enclave");
  response.end(JSON.stringify(await routes[url.pathname]?.(url)));
});
server.listen(3000, () => console.log("listening"));
process.on("SIGTERM", () => {
  for (const listener of open) listener.close();
  server.close(() => console.error("closed"));
});
`;

// ----------------------------------------------------------------- host half

let app: BuiltApp;
let running: Running;

beforeAll(async () => {
  app = await buildApp({ "app.ts": APP }, { env: { OWN: "value" }, compression: { algorithm: "none" } });
  // Its parent's clock is an hour ahead, from the start.
  const now = () => Date.now() + 3_600_000;
  running = await start(app.eifPath, { debug: true, publish: [{ port: 0, vsockPort: 3000 }], now });
  await running.enclave.ready;
});

afterAll(async () => {
  await running?.[Symbol.asyncDispose]();
  app?.remove();
});

const get = async (path: string) => (await (await fetch(`${running.url}${path}`)).json()) as never;

test("the boot is told phase by phase", () => {
  const phases = running.events.flatMap((event) => (event.type === "phase" ? [event] : []));
  expect(phases.map(({ phase }) => phase)).toEqual(
    expect.arrayContaining(["kernel", "init", "heartbeat", "control", "app"]),
  );
  const uptime = (name: string) => phases.find(({ phase }) => phase === name)?.uptimeMs ?? Number.NaN;
  const inOrder = ["kernel", "init", "heartbeat", "app"].map(uptime);
  expect(inOrder).toEqual(inOrder.toSorted((a, b) => a - b));
});

test("a parent whose clock is an hour ahead does not set the enclave's: the hypervisor's time stands", async () => {
  const before = Date.now();
  const now = (await get("/now")) as number;
  expect(now).toBeGreaterThan(before - 1_000);
  expect(now).toBeLessThan(Date.now() + 1_000);
  const said = running.events.flatMap((event) =>
    event.type === "log" && event.source === "init" ? event.text : [],
  );
  const clock = said.filter((line) => line.startsWith("clock: "));
  expect(clock).toEqual([
    expect.stringMatching(
      /^clock: parent's time refused: got \+3\d{6} ms from the NSM's time, expected at most \d+; 1 so far$/,
    ),
    expect.stringMatching(/^clock: (set by [+-]\d+ ms from|.* off by) nsm/),
  ]);
});

test("in debug mode the console shows the app's output", async () => {
  await expect.poll(() => running.console(), { timeout: 20_000 }).toContain("listening");
});

test("orphans are reaped, and the app's own children keep their statuses", async () => {
  expect(await get("/orphans")).toEqual({ statuses: [3, 0, 7], zombies: [], alive: [] });
});

test("the app finds its own place: addresses, name, environment, empty stdin", async () => {
  expect(await get("/place")).toEqual({
    debug: true,
    hostname: "probe",
    argv: ["/bin/node", expect.stringMatching(/^\/app\//)],
    env: {
      PATH: "/bin",
      HOME: "/root",
      LANG: "C.UTF-8",
      NODE_ENV: "production",
      NODE_OPTIONS: `--require=${PRELOAD}`,
      OWN: "value",
    },
    addresses: ["127.0.0.1/8", "::1/128"],
    stdin: "",
  });
});

test("vsock streams: half-close, peer, and Node's error codes", async () => {
  const heard: string[] = [];
  const peers: number[] = [];
  const port = 4321;
  const listener = running.vsock.listen(port, (stream: VsockStream) => {
    peers.push(stream.remoteCid);
    stream.on("data", (chunk: Buffer) => heard.push(String(chunk)));
    stream.on("end", () => stream.end("pong"));
  });
  expect(await get(`/vsock?port=${port}`)).toEqual({
    heard: "pong",
    peer: [3, port],
    refused: "ECONNRESET",
    lost: expect.stringMatching(/^(ETIMEDOUT|ECONNRESET|ENODEV)$/),
    aborted: "AbortError",
  });
  expect(heard.join("")).toBe("ping");
  expect(peers).toEqual([running.enclave.cid]);
  listener.close();
});

test("a vsock port has one listener", async () => {
  expect(await get("/taken")).toEqual({ code: "EADDRINUSE", port: 5555 });
  const stream = await running.enclave.connect(5555);
  expect(await text(stream)).toBe("from 3");
});

test("a server on the loopback alone is not reachable from outside, and the log says how to change that", async () => {
  await get("/private");
  await expect(running.enclave.connect(6000)).rejects.toMatchObject({ code: "ECONNRESET" });
  const texts = () => running.events.flatMap((event) => (event.type === "log" ? [event.text] : []));
  await expect
    .poll(texts, { timeout: 20_000 })
    .toContainEqual(expect.stringContaining("127.0.0.1:6000 is private"));
});

test("a flood of output neither blocks the app nor vanishes uncounted", async () => {
  expect(await get("/flood")).toBe("flooded");
  const flood = () =>
    running.events.reduce((sum, event) => {
      if (event.type !== "log" || event.source !== "stdout") return sum;
      return sum + (event.text.startsWith("flood") ? 1 : 0) + (event.dropped ?? 0);
    }, 0);
  await expect.poll(flood, { timeout: 60_000 }).toBe(3_000);
});

test("SIGTERM lets the app close its server and return", async () => {
  const report = await running.enclave.stop({ deadlineMs: 60_000 });
  expect(report).toMatchObject({ kind: "app", status: 0, reason: "return" });
  expect(report).toMatchObject({ lastWords: expect.arrayContaining(["closed"]) });
});
