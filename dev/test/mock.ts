/** Servers that stand in for the destinations of an enclave's egress list. */
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { canonicalHost, EgressList, egressRuleFor } from "../../format/egress.ts";
import type { LocalEgress } from "../../launcher/egress.ts";
import { createFetchServer } from "../../runtime/serve.ts";
import type { Authority } from "./authority.ts";

/**
 * `fetch` answers HTTP, behind TLS where `tls` says so (default: on port 443). A function gets each connection as it is.
 */
export type EgressMock =
  | ((socket: Socket) => void)
  | { fetch(request: Request): Response | Promise<Response>; readonly tls?: boolean };

/** By "host:port", as the list has it. */
export type EgressMocks = Readonly<Record<string, EgressMock>>;

export interface MockServers extends Disposable {
  readonly local: readonly LocalEgress[];
}

interface Place {
  readonly host: string;
  readonly port: number;
}

/** Does any of them need a certificate? */
export function needsAuthority(mocks: EgressMocks): boolean {
  return Object.entries(mocks).some(([place, mock]) => isTls(parsePlace(place), mock));
}

/** Listen on ports of the loopback. Throws RangeError for a key that is no host:port, or that `rules` do not allow. */
export async function serveMocks(
  mocks: EgressMocks,
  rules: readonly string[] | undefined,
  authority: Authority | undefined,
): Promise<MockServers> {
  const stack = new DisposableStack();
  const list = rules === undefined ? undefined : new EgressList(rules);
  const local: LocalEgress[] = [];
  try {
    for (const [key, mock] of Object.entries(mocks)) {
      const place = parsePlace(key);
      if (list?.allows(place.host, place.port) === false) {
        const rule = egressRuleFor(place.host, place.port);
        throw new RangeError(
          `egress.mocks: got "${key}", expected one of egress: [${rules?.join(", ")}]; add "${rule}"`,
        );
      }
      const identity = isTls(place, mock) ? await authority?.issue(place.host) : undefined;
      const server = stack.adopt(await listen(mock, identity), close);
      const { port } = server.address() as { readonly port: number };
      local.push({ ...place, to: { address: "127.0.0.1", port } });
    }
  } catch (error) {
    stack.dispose();
    throw error;
  }
  return { local, [Symbol.dispose]: () => stack.dispose() };
}

function parsePlace(key: string): Place {
  const [, bracketed, plain, digits = ""] = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(key) ?? [];
  const host = canonicalHost(bracketed ?? plain ?? "");
  const port = Number(digits);
  if (host !== undefined && port >= 1 && port <= 65_535) return { host, port };
  throw new RangeError(`egress.mocks: got "${key}", expected "host:port"`);
}

function isTls({ port }: Place, mock: EgressMock): boolean {
  return typeof mock !== "function" && (mock.tls ?? port === 443);
}

async function listen(mock: EgressMock, tls: { readonly key: string; readonly cert: string } | undefined) {
  const server = typeof mock === "function" ? createServer(mock) : createFetchServer(mock, warn, tls);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return server as Server & { closeAllConnections?(): void };
}

function warn(error: unknown): void {
  process.emitWarning(error instanceof Error ? error : String(error));
}

function close(server: Server & { closeAllConnections?(): void }): void {
  server.close();
  server.closeAllConnections?.();
}
