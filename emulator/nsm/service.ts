/**
 * The module on a vsock port of the parent, for one enclave: the device is that enclave's own, so whoever connects is it.
 * All bytes are the guest's: at most one message is held a connection, one answered at a time, and none is read while the
 * answer before it waits to be taken.
 */
import { PORT_NSM } from "../../format/abi.ts";
import { encodeFrame, FrameDecoder } from "../../format/frame.ts";
import { NSM_REQUEST_MAX } from "../../format/nsm.ts";
import type { VsockStream } from "../../launcher/device.ts";
import type { NsmModule } from "./module.ts";

/** More are reset: our runtime has one, and threads of an app one each. */
const CONNECTIONS_MAX = 64;

/** What has ports of the parent, for this one enclave. */
interface Listener {
  listen(port: number, onConnection: (stream: VsockStream) => void): unknown;
}

export function serveNsm(vsock: Listener, module: Pick<NsmModule, "answer">): void {
  let open = 0;
  vsock.listen(PORT_NSM, (stream) => {
    if (open === CONNECTIONS_MAX) {
      stream.destroy();
      return;
    }
    open++;
    void converse(stream, module).finally(() => open--);
  });
}

/** Until the guest ends it, breaks it or goes away. Never rejects. */
async function converse(stream: VsockStream, module: Pick<NsmModule, "answer">): Promise<void> {
  const decoder = new FrameDecoder(NSM_REQUEST_MAX);
  // The loop hears of errors too, as long as it runs.
  stream.on("error", () => {});
  try {
    // A guest that has ended its own writing still gets its answers.
    const chunks: AsyncIterable<Uint8Array> = stream.iterator({ destroyOnReturn: false });
    for await (const chunk of chunks) {
      for (const request of decoder.push(chunk))
        await write(stream, encodeFrame(await module.answer(request)));
    }
    stream.end();
  } catch (error) {
    // ECONNRESET, a message that is too long: the guest's doing, and its loss.
    stream.destroy(error as Error);
  }
}

async function write(stream: VsockStream, bytes: Uint8Array): Promise<void> {
  if (stream.destroyed) throw new Error("the guest is gone");
  if (stream.write(bytes)) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  const done = () => resolve();
  stream.on("drain", done).on("close", done);
  await promise;
  stream.off("drain", done).off("close", done);
}
