/** How the app ends, whatever its way: noticed after its own 'exit' listeners ran, and before Node is gone. */
import { inspect } from "node:util";
import type { ExitReason } from "../format/control.ts";

/** Node's own statuses (process.exit(), "Exit codes"). */
const STATUS_UNCAUGHT = 1;
const STATUS_UNSETTLED = 13;
/** 128 + SIGABRT, as a shell reports it. */
export const STATUS_ABORTED = 134;

export interface Ending {
  /** The app was imported; from here on an empty event loop is a return. */
  loaded(): void;
  /** End now, without the app's 'exit' listeners, as a signal would. */
  end(status: number, reason: ExitReason): never;
}

/** Watch for the end of the app. `finish` gets the status (0 to 255) and the reason, and does not return. */
export function watchEnding(finish: (status: number, reason: ExitReason) => never): Ending {
  let isLoaded = false;
  let reason: ExitReason | undefined;
  const exit = process.exit;
  process.exit = (code) => {
    reason ??= "exit";
    return exit.call(process, code);
  };
  // Where process.exit() ends up, also from within an 'exit' listener.
  (process as unknown as { reallyExit(code: number): never }).reallyExit = (code) =>
    finish(statusOf(code), reason ?? "exit");
  // Of PID 1 it would be a panic of the kernel, with the app's last lines still on their way.
  process.abort = () => finish(STATUS_ABORTED, "abort");
  process.on("uncaughtExceptionMonitor", (error, origin) => {
    if (process.listenerCount("uncaughtException") > 0 || process.hasUncaughtExceptionCaptureCallback())
      return;
    reason = origin === "unhandledRejection" ? "rejection" : "exception";
    // Node prints the stack after 'exit' was emitted, and by then this machine is gone.
    process.stderr.write(`Uncaught ${inspect(error)}\n`);
  });
  afterExit((code) => {
    // An event loop that emptied during the import: a top-level await that never settles.
    if (reason === undefined && !isLoaded) {
      process.stderr.write(
        "The app's top-level await never settled, and nothing is left that could settle it\n",
      );
      finish(STATUS_UNSETTLED, "load");
    }
    finish(statusOf(process.exitCode ?? code), reason ?? "return");
  });
  return {
    loaded: () => {
      isLoaded = true;
    },
    end: (status, why) => finish(status, why),
  };
}

/** The app could not be imported: print why, as Node does, and end. */
export function failLoad(ending: Ending, error: unknown): never {
  process.stderr.write(`Uncaught ${inspect(error)}\n`);
  return ending.end(STATUS_UNCAUGHT, "load");
}

/**
 * Call back when every 'exit' listener has run: one of ours would run before the app's, which come later, and would not
 * see the process.exitCode they set. Node emits 'exit' through this property, from C++ too.
 */
function afterExit(callback: (code: number) => void): void {
  const emit = process.emit as (this: NodeJS.Process, event: string | symbol, ...args: unknown[]) => boolean;
  process.emit = function (this: NodeJS.Process, event: string | symbol, ...args: unknown[]): boolean {
    if (event !== "exit") return emit.call(this, event, ...args);
    try {
      return emit.call(this, event, ...args);
    } finally {
      callback(Number(args[0]));
    }
  } as typeof process.emit;
}

/** wait(2) keeps the low 8 bits; process.exitCode may be the text of an integer. */
function statusOf(code: number | string): number {
  return Number(code) & 0xff;
}
