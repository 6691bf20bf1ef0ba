/** The thread of `starter.ts`: one order, one ioctl, one answer. */
import { parentPort } from "node:worker_threads";
import { startEnclave } from "../linux/enclaves.ts";
import { SystemError } from "../linux/ffi.ts";
import type { StartOrder, StartResult } from "./starter.ts";

parentPort?.once("message", ({ fd, flags, cid }: StartOrder) =>
  parentPort?.postMessage(start(fd, flags, cid)),
);

function start(fd: number, flags: number, cid: number): StartResult {
  try {
    return { cid: startEnclave(fd, flags, cid) };
  } catch (error) {
    if (error instanceof SystemError) return { errno: error.errno };
    throw error;
  }
}
