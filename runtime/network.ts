/** The outbound network of a thread in the enclave: over vsock, by the parent's proxy. */
import type { EnclaveJson } from "../format/enclave.ts";
import { connectionsOver } from "./connection.ts";
import type { Egress } from "./egress.ts";
import { Outbound } from "./outbound.ts";
import { routeOutbound } from "./route.ts";

/** Where the packer puts the bundle of init/preload.ts. */
export const PRELOAD = "/lib/preload.cjs";

/** From here on, in this thread and in the workers it starts. */
export function routeNetwork(configuration: EnclaveJson): void {
  const outbound = new Outbound();
  const connections = (egress: Egress) => connectionsOver(egress, outbound);
  routeOutbound(configuration, { outbound, connections, preload: PRELOAD });
}
