/**
 * The parent of outbound.test.ts, on a thread whose own network is nobody's to route: the real proxy, for descriptors that
 * are posted here.
 */
import type { LookupAddress } from "node:dns";
import { parentPort, workerData } from "node:worker_threads";
import type { VsockStream } from "../../launcher/device.ts";
import { EgressProxy, type LocalEgress } from "../../launcher/egress.ts";
import { Resolver } from "../../launcher/resolver.ts";
import { openStream } from "../../linux/stream.ts";

export interface CarrierData {
  readonly rules: readonly string[];
  readonly local: readonly LocalEgress[];
  readonly names: Readonly<Record<string, readonly LookupAddress[]>>;
  readonly records: unknown;
}

const { rules, local, names, records } = workerData as CarrierData;
const ENOTFOUND = -3008;

const proxy = new EgressProxy({
  rules,
  local,
  resolver: new Resolver(async (name) => {
    const found = names[name];
    if (found === undefined) throw Object.assign(new Error(name), { errno: ENOTFOUND });
    return found;
  }),
  records: { resolve: async () => records } as never,
});
parentPort?.on("message", (fd: number) => {
  void proxy.accept(openStream(fd, { allowHalfOpen: true }) as unknown as VsockStream);
});
