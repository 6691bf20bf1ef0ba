/** Child processes of the benchmarks: the app, and its clients. `node role.ts --role NAME JSON` sends what came of it. */
import { once } from "node:events";
import { createServer as createHttp } from "node:http";
import { type AddressInfo, createServer, type Server } from "node:net";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { connectRate, holdOpen, type Load, request, stream } from "./load.ts";

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

/** TCP ports of the app. */
export interface AppPorts {
  readonly http: number;
  readonly bytes: number;
}

/** The app: each server on a TCP port and on the Unix socket of its name in `folder`. */
async function serveApp(folder: string): Promise<AppPorts> {
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

const { values, positionals } = parseArgs({ allowPositionals: true, options: { role: { type: "string" } } });
const argument: unknown = JSON.parse(positionals[0] ?? "null");
const ROLES: Readonly<Record<string, () => Promise<unknown>>> = {
  app: () => serveApp(argument as string),
  request: () => request(argument as Load),
  D: () => stream(argument as Load, "D"),
  U: () => stream(argument as Load, "U"),
  connects: () => connectRate(argument as Load),
  hold: () => holdOpen(argument as Load),
};
process.send?.(await ROLES[values.role ?? ""]?.());
