/** The heartbeat: tells the parent's launcher that the enclave booted (nitro-cli, eif_loader). */
import { setTimeout as sleep } from "node:timers/promises";
import { CID_PARENT, HEARTBEAT_BYTE, PORT_HEARTBEAT } from "../format/abi.ts";
import { connectVsock } from "../linux/vsock.ts";

/** A launcher that listens late refuses at first; one that never listens has given the enclave up. */
const ATTEMPTS = 10;
const PAUSE_MS = 200;
const TIMEOUT_MS = 5_000;
const WORTH_ANOTHER = new Set(["ECONNRESET", "ETIMEDOUT"]);

/**
 * Send the byte, check its echo. Rejects with the last attempt's error: without a heartbeat the launcher terminates the
 * enclave, so there is nothing to go on for.
 */
export async function sendHeartbeat(connect: typeof connectVsock = connectVsock): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await exchangeByte(connect);
    } catch (error) {
      const { code = "" } = error as NodeJS.ErrnoException;
      if (attempt === ATTEMPTS || !WORTH_ANOTHER.has(code)) throw error;
    }
    await sleep(PAUSE_MS);
  }
}

async function exchangeByte(connect: typeof connectVsock): Promise<void> {
  const stream = await connect({ cid: CID_PARENT, port: PORT_HEARTBEAT, timeoutMs: TIMEOUT_MS });
  stream.setTimeout(TIMEOUT_MS, () => stream.destroy(new Error(`no echo within ${TIMEOUT_MS} ms`)));
  stream.write(Uint8Array.of(HEARTBEAT_BYTE));
  // Leaving the loop destroys the stream.
  for await (const [echo] of stream as AsyncIterable<Uint8Array>) {
    if (echo === HEARTBEAT_BYTE) return;
    throw new Error(`echo: got 0x${echo?.toString(16)}, expected 0x${HEARTBEAT_BYTE.toString(16)}`);
  }
  throw new Error("echo: the parent closed without one");
}
