/** Lines of a channel between processes. */
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";

/**
 * Calls back with each line. Errors of the channel are left to its end: EPIPE, ECONNRESET where the other process is killed.
 * readline hands them on as its own (lib/internal/readline/interface.js), and one that nobody hears ends this process.
 */
export function readLines(channel: Readable, onLine: (line: string) => void): void {
  const ignore = () => {};
  channel.on("error", ignore);
  createInterface({ input: channel }).on("error", ignore).on("line", onLine);
}
