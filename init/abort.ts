/**
 * Node's own giving up (out of heap: "FATAL ERROR" and abort()), which would end PID 1 and the machine with the app's last
 * lines still in the pipe. Node writes a report before it aborts, and the report goes into a pipe that is too small for
 * it: the thread waits there until the housekeeping thread, which has nothing to wait for, has told the end.
 */
import { readSync } from "node:fs";
import { closeDescriptor, limitPipe, makePipe, O_CLOEXEC, O_NONBLOCK } from "../linux/descriptor.ts";

/** One page, the least that a pipe has (fcntl(2), F_SETPIPE_SZ); a report has some ten thousand bytes. */
const PIPE_BYTES = 4096;

/** From here on; the descriptor for `GivingUp`. In the app's thread. */
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

/** The housekeeping thread's look at it. */
export class GivingUp {
  readonly #descriptor: number;
  readonly #chunk = Buffer.alloc(PIPE_BYTES);
  /** What is being written is a report that the app asked for: it is read to its end, so that the app goes on. */
  #isHarmless = false;

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  /**
   * Has Node given up? `isStalled`: the app's event loop stands still. Before it writes, Node asks the app's workers, and
   * one that does not answer keeps it from that for good.
   */
  check(isStalled: boolean): boolean {
    for (let size = this.#read(); size !== 0; size = this.#read()) {
      if (size === undefined) return isStalled && !this.#isHarmless;
      if (this.#isHarmless) continue;
      // Node's report.header.trigger (doc/api/report.md); others are an exception, a signal, the API.
      if (/"trigger":\s*"(FatalError|OOMError)"/.test(this.#chunk.toString("latin1", 0, size))) return true;
      this.#isHarmless = true;
    }
    this.#isHarmless = false;
    return false;
  }

  /** 0: nobody writes. Undefined: someone does, and has nothing there yet. */
  #read(): number | undefined {
    try {
      return readSync(this.#descriptor, this.#chunk);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EAGAIN") return undefined;
      throw error;
    }
  }
}
