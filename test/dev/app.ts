/** The project of the tests of dev/: files by path. Its app does what a request asks for. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

const APP = `
import { createServer } from "node:http";
import { connect } from "node:net";
import { attest, isDebug, nsm, vsock } from "cloister/runtime";
import { execFile } from "node:child_process";
import { Worker } from "node:worker_threads";

console.log("hello from the app");
// A server of its own beside the one that is served for it.
createServer((_, response) => response.end("second")).listen(3000);
vsock.listen({ port: 5000 }, (socket) => socket.pipe(socket));

const outside = async (url) => {
  try {
    return await (await fetch(url)).text();
  } catch (error) {
    return String(error.cause?.code ?? error.cause ?? error);
  }
};

const ROUTES = {
  "/": () => Response.json({ hello: "world" }),
  "/echo": async (request) => new Response(await request.bytes(), { headers: { "x-method": request.method } }),
  "/attest": async (request) => new Response(await attest({ nonce: Buffer.from(await request.text(), "hex") })),
  "/pcr": async () => Response.json({ value: Buffer.from((await nsm.pcr(0)).value).toString("hex"), debug: isDebug() }),
  "/out": async (request) => new Response(await outside(await request.text())),
  "/worker": async (request) => {
    const source = \`fetch(\${JSON.stringify(await request.text())}).then((r) => r.text(), (e) => String(e.cause?.code)).then((t) => require("node:worker_threads").parentPort.postMessage(t))\`;
    const worker = new Worker(source, { eval: true });
    return new Response(await new Promise((resolve) => worker.once("message", resolve)));
  },
  "/child": async (request) => {
    const source = \`fetch(\${JSON.stringify(await request.text())}).then((r) => r.text(), (e) => String(e.cause?.code)).then(console.log)\`;
    return new Response(await new Promise((resolve, reject) =>
      execFile(process.execPath, ["-e", source], (error, stdout) => (error ? reject(error) : resolve(stdout.trim())))));
  },
  "/throw": () => { throw new Error("boom"); },
  "/env": () => Response.json(process.env),
  "/say": () => { console.log("still here, with a secret"); return new Response("said"); },
  "/exit": () => process.exit(7),
  "/block": () => { console.log("blocking"); for (;;); },
  "/tcp": () => new Promise((resolve) => {
    const listen = () => createServer().on("error", (error) => resolve(new Response(error.code))).listen(3100, "127.0.0.1");
    listen().once("listening", () => listen().once("listening", () => resolve(new Response("twice"))));
  }),
  "/address": () => new Promise((resolve) => {
    const server = createServer().listen(4000, () => {
      resolve(Response.json(server.address()));
      server.close();
    });
  }),
  "/parent": async () => {
    const socket = await vsock.connect({ cid: 3, port: 6000 }).catch((error) => error);
    return new Response(String(socket.code ?? "connected"));
  },
};

export default {
  async fetch(request) {
    const route = ROUTES[new URL(request.url).pathname];
    return route === undefined ? new Response("none\\n", { status: 404 }) : await route(request);
  },
};
`;

export interface Folder extends Disposable {
  readonly directory: string;
}

export function makeProject(files: Readonly<Record<string, string>> = {}, parent = tmpdir()): Folder {
  const directory = mkdtempSync(join(parent, "cloister-dev-test-"));
  const all = { "package.json": '{"name":"probe","type":"module"}', "app.ts": APP, ...files };
  for (const [path, text] of Object.entries(all)) {
    mkdirSync(dirname(join(directory, path)), { recursive: true });
    writeFileSync(join(directory, path), text);
  }
  return { directory, [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }) };
}
