/** The heartbeat: the enclave's first sign of life. Source: nitro-cli `eif_loader/src/lib.rs`. */
import { HEARTBEAT_BYTE } from "../format/abi.ts";
import { CloisterError, type ErrorCode } from "../format/errors.ts";
import type { NitroVm } from "./device.ts";
import type { ParentPort } from "./port.ts";

const SLICE_MS = 90_000;
const GIB = 1024 ** 3;
/** Lines of console that an error shows. */
const TAIL_LINES = 20;

/**
 * nitro-cli's limit for a boot: 90 s for every 6 GiB of image begun, and 90 s for every 100 GiB of memory begun
 * (`enclave_proc/resource_manager.rs`). Sizes in bytes, at least 1.
 */
export function heartbeatLimitMs(imageBytes: number, memoryBytes: number): number {
  const slices = (bytes: number, gib: number) => 1 + Math.floor((bytes - 1) / (gib * GIB));
  return (slices(imageBytes, 6) + slices(memoryBytes, 100)) * SLICE_MS;
}

export interface HeartbeatOptions {
  readonly port: ParentPort;
  readonly vm: NitroVm;
  readonly cid: number;
  readonly limitMs: number;
  readonly signal: AbortSignal | undefined;
  /** What to do about an enclave that ends first, where that is known. */
  readonly crashFix?: string | undefined;
}

/**
 * Wait for the enclave's heartbeat and answer it. Rejects with E_HEARTBEAT_TIMEOUT, E_HEARTBEAT_BYTE, E_ENCLAVE_CRASHED
 * (it ended first), each with the console's last lines where the device can show them, or with the signal's reason.
 */
export async function awaitHeartbeat(options: HeartbeatOptions): Promise<void> {
  const { port, vm, cid, limitMs, signal, crashFix } = options;
  const { promise: refused, reject } = Promise.withResolvers<never>();
  const fail = (code: ErrorCode, message: string, fix?: string) => {
    const details = lastLines(vm.consoleTail?.() ?? "");
    reject(new CloisterError(code, message, { details, ...(fix !== undefined && { fix }) }));
  };
  const timer = setTimeout(() => {
    fail("E_HEARTBEAT_TIMEOUT", `CID ${cid}: got no heartbeat in ${limitMs / 1000} s, expected one`);
  }, limitMs);
  const abort = () => reject(signal?.reason);
  signal?.addEventListener("abort", abort);
  if (signal?.aborted) abort();
  void vm.hangup.then(() => fail("E_ENCLAVE_CRASHED", `CID ${cid}: ended before its heartbeat`, crashFix));
  try {
    const byte = await Promise.race([receiveByte(port, cid), refused]);
    if (byte !== HEARTBEAT_BYTE) {
      const message = `heartbeat of CID ${cid}: got ${hex(byte)}, expected ${hex(HEARTBEAT_BYTE)}`;
      fail("E_HEARTBEAT_BYTE", message);
      await refused;
    }
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}

/**
 * The first byte that the enclave sends on any connection to the port; the heartbeat's own is echoed. A connection that
 * ends without a byte is no heartbeat. Later connections are turned away.
 */
function receiveByte(port: ParentPort, cid: number): Promise<number> {
  const { promise, resolve } = Promise.withResolvers<number>();
  let isOver = false;
  port.claim(cid, (stream) => {
    if (isOver) {
      stream.destroy();
      return;
    }
    stream.on("data", (chunk: Buffer) => {
      const [byte] = chunk;
      if (isOver || byte === undefined) return;
      isOver = true;
      if (byte === HEARTBEAT_BYTE) stream.end(chunk.subarray(0, 1));
      else stream.destroy();
      resolve(byte);
    });
    stream.once("end", () => stream.end());
  });
  return promise;
}

function lastLines(text: string): string {
  return text.trimEnd().split(/\r?\n/).slice(-TAIL_LINES).join("\n");
}

function hex(byte: number): string {
  return `0x${byte.toString(16).padStart(2, "0")}`;
}
