/** The outbound network of a thread, as the measured configuration has it: addresses, names, certificates, workers. */
import type { EnclaveJson } from "../format/enclave.ts";
import { Egress, type Questions } from "./egress.ts";
import { routeNames } from "./resolver.ts";
import { type OpenConnection, routeTcp } from "./tcp.ts";
import { preloadWorkers } from "./thread.ts";
import { refuseUdp } from "./udp.ts";

/** The way to the parent's proxy. */
export interface Link {
  readonly outbound: Questions;
  readonly connections: (egress: Egress) => OpenConnection;
  /** What worker threads run first. */
  readonly preload: string;
}

/** From here on, in this thread and in the workers it starts. What is refused is told on standard error, the app's log. */
export function routeOutbound(
  { egress: rules, ca }: EnclaveJson,
  { outbound, connections, preload }: Link,
): void {
  const egress = new Egress({ rules, outbound, say: (line) => process.stderr.write(`${line}\n`) });
  routeTcp(egress, connections(egress));
  routeNames(egress);
  refuseUdp(egress);
  preloadWorkers(preload);
  if (ca.length > 0) trust(ca);
}

/** Add to the roots that Node has. Loads tls, which a configuration without authorities need not wait for. */
function trust(authorities: readonly string[]): void {
  const tls = process.getBuiltinModule("node:tls");
  tls.setDefaultCACertificates([...tls.getCACertificates("default"), ...authorities]);
}
