/** UDP ends at the loopback: vsock carries streams. A datagram to anywhere else fails at once, and the log says why. */
import { constants } from "node:os";
import { canonicalHost, isLoopback } from "../format/egress.ts";
import { binding } from "./binding.ts";
import type { Egress } from "./egress.ts";

const { EPROTONOSUPPORT } = constants.errno;

/** From here on, in this thread. */
export function refuseUdp(egress: Egress): void {
  const { prototype } = binding("udp_wrap").UDP;
  const refuses = (address: unknown, port: unknown) => {
    const host = typeof address === "string" ? canonicalHost(address) : undefined;
    if (host === undefined || isLoopback(host)) return false;
    egress.denyDatagram(egress.names.find(host)?.name ?? host, Number(port));
    return true;
  };
  for (const method of ["send", "send6"] as const) {
    const send = prototype[method];
    // lib/dgram.js: of a connected socket neither port nor address is passed.
    prototype[method] = function (request, list, length, ...rest) {
      const [port, address] = rest;
      return refuses(address, port) ? -EPROTONOSUPPORT : send.call(this, request, list, length, ...rest);
    };
  }
  for (const method of ["connect", "connect6"] as const) {
    const connect = prototype[method];
    prototype[method] = function (address, port) {
      return refuses(address, port) ? -EPROTONOSUPPORT : connect.call(this, address, port);
    };
  }
}
