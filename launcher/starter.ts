/**
 * NE_START_ENCLAVE on a thread of its own: the ioctl blocks until the hypervisor has started the enclave, which takes
 * seconds for much memory and 120 s where it does not answer; published ports and other enclaves go on meanwhile. The
 * driver asks for the same address space, not for the same thread.
 */
import { extname } from "node:path";
import { Worker } from "node:worker_threads";
import { SystemError } from "../linux/ffi.ts";

export interface StartOrder {
  readonly fd: number;
  readonly flags: number;
  readonly cid: number;
}

export type StartResult = { readonly cid: number } | { readonly errno: number };

export class Starter {
  readonly #worker: Worker;

  /** The thread begins now, so that it is there when it is needed: that takes 30 ms. */
  constructor() {
    this.#worker = new Worker(new URL(`start${extname(import.meta.url)}`, import.meta.url));
    this.#worker.unref();
  }

  /** Once. Returns the CID. Rejects with SystemError. */
  start(order: StartOrder): Promise<number> {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    this.#worker.ref();
    this.#worker.once("error", reject);
    this.#worker.once("message", (result: StartResult) => {
      if ("cid" in result) resolve(result.cid);
      else reject(new SystemError("NE_START_ENCLAVE", result.errno));
    });
    this.#worker.postMessage(order);
    return promise.finally(() => this.close());
  }

  /** Idempotent. */
  close(): void {
    void this.#worker.terminate();
  }
}
