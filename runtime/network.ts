/** The outbound network of a thread, as the measured configuration has it: addresses, names, certificates, workers. */
import type { EnclaveJson } from "../format/enclave.ts";
import { Egress } from "./egress.ts";
import { routeNames } from "./resolver.ts";
import { routeTcp } from "./tcp.ts";
import { preloadWorkers } from "./thread.ts";
import { refuseUdp } from "./udp.ts";

/** Where the packer puts the bundle of init/preload.ts. */
export const PRELOAD = "/lib/preload.cjs";

/** From here on, in this thread and in the workers it starts. What is refused is told on standard error, the app's log. */
export function routeNetwork({ egress: rules, ca }: EnclaveJson): void {
  const egress = new Egress({ rules, say: (line) => process.stderr.write(`${line}\n`) });
  routeTcp(egress);
  routeNames(egress);
  refuseUdp(egress);
  preloadWorkers(PRELOAD);
  if (ca.length > 0) trust(ca);
}

/** Add to the roots that Node has. Loads tls, which a configuration without authorities need not wait for. */
function trust(authorities: readonly string[]): void {
  const tls = process.getBuiltinModule("node:tls");
  tls.setDefaultCACertificates([...tls.getCACertificates("default"), ...authorities]);
}
