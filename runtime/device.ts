/** The kernel's own Nitro Secure Module. */
import { setImmediate as nextTurn } from "node:timers/promises";
import { exchangeNsm, openNsm } from "../linux/nsm.ts";
import { type NsmModule, Queue } from "./module.ts";

/**
 * /dev/nsm. Its ioctl blocks the thread for as long as the module takes, and a thread of its own would not make it answer
 * more: the driver lets one request in at a time. Between two of them the event loop has a turn.
 */
export class DeviceModule implements NsmModule {
  readonly #fd: number;
  readonly #queue = new Queue();

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Undefined where this machine has none. Open it once: the descriptor is never closed. */
  static open(): DeviceModule | undefined {
    const fd = openNsm();
    return fd === undefined ? undefined : new DeviceModule(fd);
  }

  exchange(request: Uint8Array): Promise<Uint8Array> {
    return this.#queue.run(async () => {
      await nextTurn();
      return this.exchangeNow(request);
    });
  }

  /** For the boot, which has nothing else to do. Throws SystemError. */
  exchangeNow(request: Uint8Array): Uint8Array {
    return exchangeNsm(this.#fd, request);
  }
}
