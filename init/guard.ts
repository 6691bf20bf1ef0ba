/** Runs what may never end, and ends it. */
import { type Context, createContext, Script } from "node:vm";

/** The watchdog of node:vm is the one way to interrupt a regular expression; it costs 0.2 ms a call. */
const call = new Script("run()");
/** Made when it is needed: it takes milliseconds of the boot. */
let context: (Context & { run?: () => void }) | undefined;

/** False where `run` was not done after `limitMs`; what it throws is thrown. */
export function runWithin(limitMs: number, run: () => void): boolean {
  context ??= createContext();
  context.run = run;
  try {
    call.runInContext(context, { timeout: Math.max(1, Math.ceil(limitMs)) });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ERR_SCRIPT_EXECUTION_TIMEOUT") return false;
    throw error;
  }
}
