/** The parent's proxy on the vsock port where enclaves ask for it, each enclave with a list of its own. */
import { PORT_EGRESS } from "../format/abi.ts";
import { DescriptorRelay } from "./descriptors.ts";
import type { ParentVsock } from "./device.ts";
import { type EgressOptions, EgressProxy } from "./egress.ts";
import { openParentPort } from "./port.ts";
import type { Traffic } from "./traffic.ts";

export interface EgressCarrier extends Disposable {
  /** Carry the connections of this CID from here on, those that wait too. */
  serve(cid: number): void;
  traffic(): Traffic;
}

/** Listen for one enclave. Rejects with E_PARENT_PORT_TAKEN. */
export async function openEgress(vsock: ParentVsock, options: EgressOptions): Promise<EgressCarrier> {
  const proxy = new EgressProxy({ ...options, descriptors: new DescriptorRelay() });
  const port = openParentPort(vsock, PORT_EGRESS);
  await port.ready;
  return {
    serve: (cid) => port.claim(cid, (stream) => void proxy.accept(stream)),
    traffic: () => proxy.traffic(),
    [Symbol.dispose]() {
      port[Symbol.dispose]();
      proxy.close();
    },
  };
}
