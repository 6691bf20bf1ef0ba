/** What a supervisor does for other processes of its user: one request a connection, a JSON line each way. */
import { createServer, connect as dial, type Socket } from "node:net";
import { CloisterError, ERRORS, type ErrorCode } from "../format/errors.ts";
import type { ErrorRecord } from "./record.ts";

export type ServiceRequest =
  | { readonly verb: "stop"; readonly deadlineMs: number }
  | { readonly verb: "terminate" }
  /** Answered when it ended for good. */
  | { readonly verb: "wait" }
  /** What the image says of itself, its PCRs first. */
  | { readonly verb: "describe" }
  /** How it does now: a HealthReport. */
  | { readonly verb: "health" };

type Answer = { readonly value: unknown } | { readonly error: ErrorRecord };

/** Either side's line; the directory is private, so this guards against mistakes, not against attacks. */
const LINE_MAX = 4 << 20;
/** A client that does not read its answer is not waited for. */
const FLUSH_MS = 1000;

export interface Service {
  /** No more requests; answers that are on their way get there. */
  close(): Promise<void>;
}

/** Throws Node's listen errors. */
export async function serve(
  path: string,
  answer: (request: ServiceRequest) => Promise<unknown>,
): Promise<Service> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    // A client that went away: its request stands, its answer is for nobody.
    socket.on("error", () => {});
    void readLine(socket)
      .then((line) => answer(JSON.parse(line) as ServiceRequest))
      .then((value): Answer => ({ value }))
      .catch((error: unknown): Answer => ({ error: recordError(error) }))
      .then((result) => socket.end(`${JSON.stringify(result)}\n`));
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen(path, resolve);
  await promise;
  return {
    async close() {
      const closed = new Promise<void>((settle) => server.close(() => settle()));
      const timer = setTimeout(() => {
        for (const socket of sockets) socket.destroy();
      }, FLUSH_MS);
      await closed;
      clearTimeout(timer);
    },
  };
}

/** The supervisor went away without an answer, or was not there. */
export class SupervisorGone extends Error {}

/** The answer's value. Rejects with what the supervisor throws, with `signal`'s reason, or with SupervisorGone. */
export async function ask(path: string, request: ServiceRequest, signal?: AbortSignal): Promise<unknown> {
  const socket = dial(path);
  const abort = () => socket.destroy();
  signal?.addEventListener("abort", abort, { once: true });
  try {
    signal?.throwIfAborted();
    socket.on("error", () => {});
    socket.write(`${JSON.stringify(request)}\n`);
    const answer = JSON.parse(await readLine(socket)) as Answer;
    if ("error" in answer) throw reviveError(answer.error);
    return answer.value;
  } catch (error) {
    if (error instanceof CloisterError) throw error;
    signal?.throwIfAborted();
    throw new SupervisorGone(path, { cause: error });
  } finally {
    signal?.removeEventListener("abort", abort);
    socket.destroy();
  }
}

/** Rejects where the stream ends before the line does. */
function readLine(socket: Socket): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let text = "";
  socket.setEncoding("utf8");
  socket.on("data", (chunk: string) => {
    text += chunk;
    const end = text.indexOf("\n");
    if (end >= 0) resolve(text.slice(0, end));
    else if (text.length > LINE_MAX) socket.destroy();
  });
  socket.once("end", () => reject(new Error("ended before a line")));
  socket.once("close", () => reject(new Error("closed before a line")));
  return promise;
}

export function recordError(error: unknown): ErrorRecord {
  if (!(error instanceof CloisterError)) {
    return { code: "E_INTERNAL", message: error instanceof Error ? error.message : String(error) };
  }
  const { code, message, details, fix } = error;
  return { code, message, ...(details !== undefined && { details }), ...(fix !== undefined && { fix }) };
}

export function reviveError({ code, message, details, fix }: ErrorRecord): CloisterError {
  const known = code in ERRORS ? (code as ErrorCode) : "E_INTERNAL";
  return new CloisterError(known, message, {
    ...(details !== undefined && { details }),
    ...(fix !== undefined && { fix }),
  });
}
