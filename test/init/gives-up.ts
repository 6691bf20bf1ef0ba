/** Fills its heap; its other thread says so once it sees it, and ends it. */
import { writeSync } from "node:fs";
import { isMainThread, Worker, workerData } from "node:worker_threads";
import { awaitGivingUp, GivingUp } from "../../init/abort.ts";

if (isMainThread) {
  const descriptor = awaitGivingUp();
  const worker = new Worker(new URL(import.meta.url), { workerData: descriptor });
  worker.once("online", () => {
    const kept: number[][] = [];
    for (let i = 0.5; ; i++) kept.push(new Array(100_000).fill(i));
  });
} else {
  const givingUp = new GivingUp(workerData as number);
  setInterval(() => {
    if (!givingUp.check(false)) return;
    writeSync(1, "seen\n");
    process.kill(process.pid, "SIGKILL");
  }, 20);
}
