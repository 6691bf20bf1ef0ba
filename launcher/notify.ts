/** sd_notify(3): tell the service manager, where it wants to know. */
import { writeSync } from "node:fs";
import { closeDescriptor } from "../linux/descriptor.ts";
import { SystemError } from "../linux/ffi.ts";
import * as unix from "../linux/unix.ts";

/** `state`: such as `READY=1`. Whoever set `path` and does not listen there is not told. */
export function notifyManager(path: string | undefined, state: string): void {
  if (!path) return;
  const address = path.startsWith("@") ? unix.abstractAddress(path.slice(1)) : unix.pathAddress(path);
  const socket = unix.openUnix(unix.SOCK_CLOEXEC, unix.SOCK_DGRAM);
  try {
    unix.connectUnix(socket, address);
    writeSync(socket, state);
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
  } finally {
    closeDescriptor(socket);
  }
}
