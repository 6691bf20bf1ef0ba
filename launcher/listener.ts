/** Where clients of a published port come from: TCP, a Unix socket, or a socket that systemd opened. */
import { lstatSync, rmSync } from "node:fs";
import { connect, type Server } from "node:net";
import { CloisterError } from "../format/errors.ts";
import { closeDescriptor, copyDescriptor } from "../linux/descriptor.ts";

export interface TcpPlace {
  /** Default: 127.0.0.1. */
  readonly address?: string;
  /** 0 takes a free one. */
  readonly port: number;
}

export interface UnixPlace {
  /** Of a socket for this user alone. What a dead process left there is replaced. */
  readonly path: string;
}

export interface SystemdPlace {
  /** FileDescriptorName of a socket that systemd passed; empty: the only one. */
  readonly systemd: string;
}

export type Place = TcpPlace | UnixPlace | SystemdPlace;

/** Where a server listens. */
export interface Bound {
  /** For a Unix socket `unix:` and its path. */
  readonly address: string;
  /** 0 for a Unix socket. */
  readonly port: number;
}

/** Listen. Rejects with E_PORT_TAKEN, E_PORT_UNUSABLE, E_SOCKET_UNUSABLE, E_ACTIVATION. */
export async function listenAt(server: Server, place: Place, env = process.env): Promise<Bound> {
  if ("port" in place) await listenTcp(server, place);
  else if ("path" in place) await listenUnix(server, place.path);
  else await listenSystemd(server, place.systemd, env);
  return boundOf(server, place);
}

function boundOf(server: Server, place: Place): Bound {
  const bound = server.address();
  if (bound === null) throw new Error("BUG: the server does not listen");
  if (typeof bound === "string") return { address: `unix:${bound}`, port: 0 };
  return { address: "port" in place ? addressOf(place) : bound.address, port: bound.port };
}

function addressOf({ address = "127.0.0.1" }: TcpPlace): string {
  return address;
}

function listening(server: Server, failure: (error: NodeJS.ErrnoException) => CloisterError): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("listening", resolve);
  server.once("error", (error: NodeJS.ErrnoException) => reject(failure(error)));
  return promise;
}

async function listenTcp(server: Server, place: TcpPlace): Promise<void> {
  const { port } = place;
  const address = addressOf(place);
  const done = listening(server, (error) => {
    const taken = error.code === "EADDRINUSE";
    const message = `${address}:${port}: got ${error.code}, expected ${taken ? "a free port" : "to listen there"}`;
    const options = taken ? { fix: takenFix(port), cause: error } : { cause: error };
    return new CloisterError(taken ? "E_PORT_TAKEN" : "E_PORT_UNUSABLE", message, options);
  });
  server.listen({ port, host: address, backlog: BACKLOG });
  await done;
}

/** Connections that arrive while it is full are lost for a second. The kernel has its own limit, net.core.somaxconn. */
const BACKLOG = 4096;

function takenFix(port: number): string {
  return `Name another port, or 0 for any free one; \`ss -ltnp 'sport = :${port}'\` shows who has it.`;
}

async function listenUnix(server: Server, path: string): Promise<void> {
  if (await isStale(path)) rmSync(path, { force: true });
  const done = listening(server, (error) => {
    const message = `${path}: got ${error.code}, expected to listen on a Unix socket there`;
    return new CloisterError("E_SOCKET_UNUSABLE", message, { cause: error });
  });
  // bind(2), which makes the file, happens in listen() itself: the file never had another mode.
  const umask = process.umask(0o177);
  try {
    server.listen({ path, backlog: BACKLOG });
  } finally {
    process.umask(umask);
  }
  await done;
}

/** A socket that nobody listens on any more. */
async function isStale(path: string): Promise<boolean> {
  if (!isSocket(path)) return false;
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(path);
  socket.once("connect", () => resolve(false));
  socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code === "ECONNREFUSED"));
  return await promise.finally(() => socket.destroy());
}

/** False too where one may not look (EACCES) or a folder is none (ENOTDIR): listening there fails, and says so. */
function isSocket(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false })?.isSocket() === true;
  } catch {
    return false;
  }
}

async function listenSystemd(server: Server, name: string, env: NodeJS.ProcessEnv): Promise<void> {
  // A copy: the socket outlives this server, so that clients wait while an enclave is started again.
  const fd = copyDescriptor(passedSocket(name, env));
  const done = listening(server, (error) => {
    const message = `systemd's socket ${name || "3"}: got ${error.code}, expected a listening stream socket`;
    return new CloisterError("E_ACTIVATION", message, { cause: error });
  });
  try {
    server.listen({ fd });
  } catch (error) {
    closeDescriptor(fd);
    throw error;
  }
  await done;
}

/** sd_listen_fds(3): SD_LISTEN_FDS_START. */
const FIRST_DESCRIPTOR = 3;

/** The descriptor of a socket that systemd passed to this process: sd_listen_fds_with_names(3). Throws E_ACTIVATION. */
export function passedSocket(
  name: string,
  { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES }: NodeJS.ProcessEnv,
): number {
  if (LISTEN_PID !== String(process.pid)) {
    const found = LISTEN_PID === undefined ? "no LISTEN_PID" : `LISTEN_PID=${LISTEN_PID}`;
    throw new CloisterError(
      "E_ACTIVATION",
      `environment: found ${found}, expected LISTEN_PID=${process.pid}`,
    );
  }
  const count = /^\d{1,4}$/.test(LISTEN_FDS ?? "") ? Number(LISTEN_FDS) : 0;
  const names = LISTEN_FDNAMES?.split(":") ?? [];
  const matching = Array.from({ length: count }, (_, index) => index).filter(
    (index) => name === "" || names[index] === name,
  );
  const [index] = matching;
  if (index !== undefined && matching.length === 1) return FIRST_DESCRIPTOR + index;
  const wanted = name === "" ? "one socket, or a name" : `one socket named ${name}`;
  const found = `${count} named ${LISTEN_FDNAMES ?? "nothing"}`;
  throw new CloisterError("E_ACTIVATION", `systemd's sockets: found ${found}, expected ${wanted}`);
}
