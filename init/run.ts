/** The app in this process: its surroundings, its import, and what serves it. */
import { inspect } from "node:util";
import type { ExitReason } from "../format/control.ts";
import type { EnclaveJson } from "../format/enclave.ts";
import { attestedApp } from "../runtime/attested.ts";
import { createTlsIdentity } from "../runtime/identity.ts";
import { mirrorServers } from "../runtime/listen.ts";
import type { NsmModule } from "../runtime/module.ts";
import { attestBinding } from "../runtime/nsm.ts";
import { enterEnclave } from "../runtime/place.ts";
import { expectHeaders } from "../runtime/proxy.ts";
import { Readiness } from "../runtime/ready.ts";
import { type FetchApp, isFetchApp, type Served, serveFetch } from "../runtime/serve.ts";
import type { Listen } from "../runtime/vsock.ts";
import { importApp, prepareProcess, provideRuntime } from "./app.ts";
import { failLoad, watchEnding } from "./ending.ts";
import type { Machine } from "./machine.ts";
import { handleSignals } from "./signals.ts";

/** What the boot found out. */
export interface Place {
  readonly configuration: EnclaveJson;
  readonly debug: boolean;
  /** Absent where this machine has none. */
  readonly nsm: NsmModule | undefined;
  readonly machine: Machine;
}

/** Who hears of the app. */
export interface AppHost {
  /** A line of init's own for the log. */
  say(line: string): void;
  /** Once; `ports`: the vsock ports reachable by then. */
  onReady(ports: readonly number[]): void;
  finish(status: number, reason: ExitReason): never;
  /** Default: the machine's vsock. */
  readonly listen?: Listen;
}

/** Load the app and serve what it exports. Returns when it is running; the process ends when it ends. */
export async function runApp({ configuration, debug, nsm, machine }: Place, host: AppHost): Promise<void> {
  const { ports, ready: mode, proxyProtocol } = configuration;
  const { vsock } = machine;
  const { listen: accept = vsock.listen } = host;
  const listen = proxyProtocol ? expectHeaders(accept, (line) => host.say(line)) : accept;
  let served: Served | undefined;
  const ending = watchEnding((status, reason) => host.finish(status, reason));
  handleSignals((status) => {
    // An app of requests has done its duty when the last one is answered.
    if (served !== undefined) void served.close().then(() => ending.end(0, "signal"));
    else ending.end(status, "signal");
  });
  const readiness = new Readiness({ mode, ports, onReady: (listening) => host.onReady(listening) });
  enterEnclave({ debug, nsm, vsock, ready: () => readiness.said() });
  mirrorServers({
    ports,
    onListening: (port) => readiness.listening(port),
    say: (line) => host.say(line),
    listen,
  });
  machine.route(configuration);
  prepareProcess(configuration, machine);
  provideRuntime();
  try {
    const app = await importApp(configuration, machine);
    ending.loaded();
    if (isFetchApp(app)) {
      const [port] = ports;
      if (port === undefined)
        throw new Error('The app exports fetch, and "ports" is empty: no port to serve it on');
      served = await serveApp(app, port, configuration, listen);
      readiness.listening(port);
    } else if (configuration.tls) {
      throw new Error('"tls" is true, and the app exports no fetch: nothing to serve with TLS');
    } else if (app !== undefined) {
      host.say("the default export has no function named fetch: nothing serves it");
    }
  } catch (error) {
    failLoad(ending, error);
  }
  readiness.evaluated();
}

/** With TLS and with the runtime's own answers, as configured. */
async function serveApp(
  app: FetchApp,
  port: number,
  { name, tls, attestation }: EnclaveJson,
  listen: Listen,
): Promise<Served> {
  const onError = (error: unknown) => process.stderr.write(`${inspect(error)}\n`);
  const identity = tls ? await createTlsIdentity(name) : undefined;
  const tlsKey = identity?.spkiHash ?? null;
  const served = attestation ? attestedApp(app, { attest: attestBinding, tlsKey, onError }) : app;
  return serveFetch(served, { port, onError, tls: identity, listen });
}
