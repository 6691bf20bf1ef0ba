/**
 * What the relay of a published port costs, against socat (TCP to Unix socket) in its place and against no relay at all:
 * `node bench/inbound.ts [--seconds N] [--rounds N] [--only TEXT] [--quick] [--vm]`. `apt-get install socat` first; without it its rows are left out.
 * A table on stderr, one JSON value on stdout.
 *
 * The app is a plain process that listens on a TCP port and on a Unix socket, the same for all; the relay connects to the
 * Unix socket where on an EC2 parent it connects to a vsock port. `--vm` adds the app in an enclave in the emulator.
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { createEmulatedDevice } from "../emulator/index.ts";
import { launch } from "../launcher/index.ts";
import { publishPort } from "../launcher/publish.ts";
import { connectUnix, openUnix, pathAddress } from "../linux/unix.ts";
import { compare, type Extent, extentOf, inChild, OPTIONS, type Target } from "./compare.ts";
import { withImage } from "./image.ts";
import type { AppPorts } from "./role.ts";

// ------------------------------------------------------------------ processes

async function serveRelay(folder: string): Promise<AppPorts> {
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

function waysTo({ http, bytes }: AppPorts) {
  return { http: { port: http }, bytes: { port: bytes } };
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
    ...waysTo(ports),
    name: `socat -b ${blockBytes}`,
    pids: children.map(({ pid = 0 }) => pid),
    stop: () => {
      for (const child of children) child.kill();
    },
  };
}

async function main(extent: Extent, withVm: boolean): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "cloister-inbound-"));
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rmSync(folder, { recursive: true, force: true }));
  const app = await inChild<AppPorts>("app", folder);
  stack.defer(() => void app.child.kill());
  const relay = await inChild<AppPorts>("relay", folder, import.meta.filename);
  stack.defer(() => void relay.child.kill());
  const targets: Target[] = [
    { name: "no relay", ...waysTo(app.result), pids: [], stop: () => {} },
    { name: "cloister", ...waysTo(relay.result), pids: [relay.child.pid ?? 0], stop: () => {} },
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
  const relayed = await compare(targets, extent);
  console.log(
    JSON.stringify({
      inbound: { ...extent, relayed, ...(withVm && { vm: await compareVm(extent) }) },
    }),
  );
}

/** The hello example in an enclave, by its published port. */
async function compareVm(extent: Extent) {
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
      ...waysTo({ http: port, bytes: port }),
      pids: [],
      stop: () => {},
    };
    return await compare([target], { ...extent, only: "requests" });
  });
}

const { values, positionals } = parseArgs({ allowPositionals: true, options: OPTIONS });
if (values.role === "relay") process.send?.(await serveRelay(JSON.parse(positionals[0] ?? "")));
else await main(extentOf(values), values.vm);
