/** A Nitro Secure Module, as the runtime asks it, and the emulator's, which is a connection to the parent. */
import type { Socket } from "node:net";
import { constants } from "node:os";
import { mismatch } from "../format/failure.ts";
import { encodeFrame, FrameDecoder } from "../format/frame.ts";
import { NSM_REQUEST_MAX, NSM_RESPONSE_MAX } from "../format/nsm.ts";
import { SystemError } from "../linux/failure.ts";

export interface NsmModule {
  /**
   * One request, CBOR, at most NSM_REQUEST_MAX bytes; the answer. One at a time, in the order of the calls. Rejects with
   * SystemError where the module does not answer.
   */
  exchange(request: Uint8Array): Promise<Uint8Array>;
}

/** Lets one task in at a time, in order. */
export class Queue {
  #last: Promise<unknown> = Promise.resolve();

  run<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#last.then(task);
    this.#last = result.catch(() => {});
    return result;
  }
}

/** As long as the driver of /dev/nsm waits (linux drivers/misc/nsm.c). */
const ANSWER_TIMEOUT_MS = 120_000;

/** The emulator's module, on the parent. A connection that is lost is made again by the next request. */
export class EmulatedModule implements NsmModule {
  readonly #connect: () => Promise<Socket>;
  readonly #queue = new Queue();
  #socket: Socket | undefined;

  /** `connect`: to the parent's PORT_NSM. */
  constructor(connect: () => Promise<Socket>) {
    this.#connect = connect;
  }

  exchange(request: Uint8Array): Promise<Uint8Array> {
    if (request.length > NSM_REQUEST_MAX) {
      // As the driver of /dev/nsm does.
      const error = new SystemError("NSM", constants.errno.EMSGSIZE, `${request.length} bytes`);
      return Promise.reject(error);
    }
    return this.#queue.run(async () => {
      const socket = this.#socket?.destroyed === false ? this.#socket : await this.#open();
      this.#socket = socket;
      try {
        return await ask(socket, request);
      } catch (error) {
        socket.destroy();
        throw error;
      }
    });
  }

  async #open(): Promise<Socket> {
    const socket = await this.#connect();
    // While no request waits, a lost connection is nobody's error.
    return socket.on("error", () => {}).on("end", () => socket.destroy());
  }
}

async function ask(socket: Socket, request: Uint8Array): Promise<Uint8Array> {
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
  const decoder = new FrameDecoder(NSM_RESPONSE_MAX);
  const onData = (chunk: Uint8Array) => {
    try {
      for (const answer of decoder.push(chunk)) resolve(answer);
    } catch (error) {
      reject(error);
    }
  };
  const onClose = () => reject(mismatch("E_NSM", "emulated NSM", "the end of the connection", "an answer"));
  const onTimeout = () =>
    reject(mismatch("E_NSM", "emulated NSM", `nothing for ${ANSWER_TIMEOUT_MS} ms`, "an answer"));
  socket.on("data", onData).on("error", reject).on("end", onClose).on("close", onClose);
  socket.setTimeout(ANSWER_TIMEOUT_MS, onTimeout);
  // An app ends when its own work ends: only a request under way is work.
  socket.ref();
  socket.write(encodeFrame(request));
  try {
    return await promise;
  } finally {
    socket.unref();
    socket.setTimeout(0, onTimeout);
    socket.off("data", onData).off("error", reject).off("end", onClose).off("close", onClose);
  }
}
