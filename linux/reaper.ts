/**
 * Orphans: processes whose parent died become those of PID 1, or of a process that adopts them, which must reap them.
 * Node reaps only what it started.
 */
import type { ChildProcess } from "node:child_process";
import { subscribe } from "node:diagnostics_channel";
import { findEndedChild, reapChild } from "./process.ts";

/**
 * Reap orphans as they end, from before the first child is started. Children that this thread starts are left to libuv,
 * which would lose their status.
 */
export function reapOrphans(): void {
  const children = new Set<ChildProcess>();
  const isOurs = (pid: number) => [...children].some((child) => child.pid === pid);
  const reap = () => {
    for (let pid = findEndedChild(); pid !== undefined; pid = findEndedChild()) {
      // libuv reaps it in this turn of the loop; its 'exit' brings us back to what waits behind it.
      if (isOurs(pid)) return;
      reapChild(pid);
    }
  };
  subscribe("child_process", (message) => {
    const { process: child } = message as { process: ChildProcess };
    // Published before the fork. One that fails has no pid afterwards, and its 'error' event is the app's.
    process.nextTick(() => {
      if (child.pid === undefined) return;
      children.add(child);
      child.once("exit", () => {
        children.delete(child);
        reap();
      });
    });
  });
  process.on("SIGCHLD", reap);
}
