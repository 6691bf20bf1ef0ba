/**
 * Node's own giving up (out of heap: "FATAL ERROR" and abort()), which would end PID 1 and the machine with the app's last
 * lines still in the pipe. Node writes a report before it aborts, and the report goes into a pipe that is too small for
 * it: the thread waits there until the housekeeping thread, which has nothing to wait for, has told the end.
 */
import { readSync } from "node:fs";
import { closeDescriptor, limitPipe, makePipe, O_CLOEXEC, O_NONBLOCK } from "../linux/descriptor.ts";

/** One page, the least that a pipe has (fcntl(2), F_SETPIPE_SZ); a report has some ten thousand bytes. */
const PIPE_BYTES = 4096;

/** From here on; the descriptor for `hasGivenUp`. In the app's thread. */
export function awaitGivingUp(): number {
  const { readEnd, writeEnd } = makePipe(O_CLOEXEC | O_NONBLOCK);
  limitPipe(readEnd, PIPE_BYTES);
  closeDescriptor(writeEnd);
  const { report } = process;
  // proc_pid_fd(5): to open it for writing opens the pipe's other end.
  Object.assign(report, { filename: `/proc/self/fd/${readEnd}`, reportOnFatalError: true });
  const writeReport = report.writeReport as (name: string, error?: Error) => string;
  // A report that the app asks for goes to a file, as ever.
  report.writeReport = (name?: string | Error, error?: Error) =>
    typeof name === "string"
      ? Reflect.apply(writeReport, report, [name, error])
      : Reflect.apply(writeReport, report, [`/tmp/report.${Date.now()}.json`, name]);
  return readEnd;
}

/** Is Node writing its report? */
export function hasGivenUp(descriptor: number): boolean {
  try {
    return readSync(descriptor, Buffer.alloc(1)) > 0;
  } catch (error) {
    // Someone has the other end open and wrote nothing yet.
    if ((error as NodeJS.ErrnoException).code === "EAGAIN") return true;
    throw error;
  }
}
