/** A supervisor in a process of its own, which outlives this one once the app serves. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { extname } from "node:path";
import { createInterface } from "node:readline";
import type { Duplex } from "node:stream";
import { fileURLToPath } from "node:url";
import { CloisterError } from "../format/errors.ts";
import type { EnclaveRecord, ErrorRecord } from "../launcher/record.ts";
import { reviveError } from "../launcher/service.ts";
import type { SupervisorEvent } from "../launcher/supervisor.ts";
import type { Io } from "./command.ts";
import type { Order } from "./order.ts";

/** The supervisor's end of the channel to whoever started it: the order comes in, one JSON line an item goes out. */
export const CHANNEL_DESCRIPTOR = 3;

export type Notice =
  | { readonly event: SupervisorEvent }
  | { readonly command: readonly string[] }
  /** The last one: the app serves. */
  | { readonly ready: EnclaveRecord }
  | { readonly error: ErrorRecord };

/**
 * Start it and wait until the app serves. Rejects with what the supervisor met, in the same words as in this process.
 * Until then the supervisor ends with this process: nobody would know of its enclave.
 */
export async function detach(
  order: Order,
  io: Io,
  onNotice: (notice: Notice) => void,
): Promise<EnclaveRecord> {
  const script = fileURLToPath(new URL(`supervisor${extname(import.meta.url)}`, import.meta.url));
  const child = spawn(process.execPath, ["--no-warnings", script], {
    stdio: ["ignore", "ignore", "ignore", "pipe"],
    cwd: "/",
    // A session of its own: it hears nothing of this terminal.
    detached: true,
    env: io.env,
  });
  await once(child, "spawn");
  const channel = child.stdio[CHANNEL_DESCRIPTOR] as Duplex;
  // Its end is told by the lines that do not come.
  channel.on("error", () => {});
  const interrupt = () => channel.end();
  io.signal.addEventListener("abort", interrupt, { once: true });
  channel.write(`${JSON.stringify(order)}\n`);
  try {
    for await (const line of createInterface({ input: channel })) {
      const notice = JSON.parse(line) as Notice;
      if ("error" in notice) throw reviveError(notice.error);
      if ("ready" in notice) return notice.ready;
      onNotice(notice);
    }
    throw new CloisterError(
      "E_SUPERVISOR_DIED",
      `${order.eif}: got no answer from its supervisor ${child.pid}`,
    );
  } finally {
    io.signal.removeEventListener("abort", interrupt);
    channel.destroy();
    child.unref();
  }
}
