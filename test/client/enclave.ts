/** What the runtime serves, without a VM: its own endpoints and TLS over TCP, documents signed by a chain of a test's. */
import { once } from "node:events";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { AttestationDocument } from "../../format/attestation.ts";
import { attestedApp } from "../../runtime/attested.ts";
import { createTlsIdentity, type TlsIdentity } from "../../runtime/identity.ts";
import type { AttestOptions } from "../../runtime/nsm.ts";
import { createFetchServer, type FetchApp } from "../../runtime/serve.ts";
import { type Chain, createChain, POLICY, signed } from "../format/authority.ts";

/** A chain that is valid by this machine's clock. */
export async function chainOfNow(): Promise<Chain> {
  const now = Date.now();
  const spoil = { notBefore: now - 60_000, notAfter: now + 3_600_000 };
  return createChain({ 0: spoil, 1: spoil, 2: spoil, 3: spoil, 4: spoil });
}

export interface TestEnclave extends AsyncDisposable {
  readonly url: string;
  readonly identity: TlsIdentity | undefined;
  /** Every request that reached the server, as `METHOD path`. */
  readonly seen: readonly string[];
  /** Nonces that documents were made for, hexadecimal. */
  readonly attested: readonly string[];
  readonly errors: readonly unknown[];
}

export interface TestEnclaveOptions {
  readonly chain: Chain;
  readonly app: FetchApp;
  readonly tls?: boolean;
  /** Of every document. */
  readonly changes?: Partial<Record<keyof AttestationDocument, unknown>>;
  /** What the binding claims, instead of this server's own key. */
  readonly boundKey?: Uint8Array;
}

/** What accepts its documents. */
export function accepting(chain: Chain) {
  return { pcrs: POLICY, roots: [chain.fingerprint] };
}

export async function startEnclave(options: TestEnclaveOptions): Promise<TestEnclave> {
  const { chain, app, tls = false, changes = {}, boundKey } = options;
  const identity = tls ? await createTlsIdentity("test") : undefined;
  const attested: string[] = [];
  const errors: unknown[] = [];
  const attest = ({ nonce, userData, publicKey }: AttestOptions) => {
    attested.push(Buffer.from(nonce ?? []).toString("hex"));
    return signed(chain, { timestamp: Date.now(), nonce, userData, publicKey, ...changes });
  };
  const onError = (error: unknown) => void errors.push(error);
  const served = attestedApp(app, { attest, tlsKey: boundKey ?? identity?.spkiHash ?? null, onError });
  const { server, seen, url } = await listen(createFetchServer(served, onError, identity), tls);
  return { url, identity, seen, attested, errors, [Symbol.asyncDispose]: () => close(server) };
}

export async function listen(server: Server, tls: boolean) {
  const seen: string[] = [];
  server.prependListener("request", ({ method, url }) => seen.push(`${method} ${url}`));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return { server, seen, url: `${tls ? "https" : "http"}://127.0.0.1:${port}` };
}

export async function close(server: Server): Promise<void> {
  server.closeAllConnections();
  server.close();
  await once(server, "close");
}
