/**
 * Programs: an enclave has Node, and neither a shell nor any other. To start one fails with ENOENT, as on any machine that
 * lacks it, so that libraries which ask for it do without; the message says why.
 */
import { EventEmitter } from "node:events";
import { syncBuiltinESMExports } from "node:module";
import { CloisterError } from "../format/errors.ts";

/** From here on, in this thread. */
export function explainMissingPrograms(): void {
  const programs = process.getBuiltinModule("node:child_process");
  const { prototype } = programs.ChildProcess as unknown as { prototype: EventEmitter };
  // exec and execFile hear of it by the same event; a listener of ours would keep an unhandled error from ending the app.
  prototype.emit = function (event, ...args: unknown[]) {
    if (event === "error") explain(args[0]);
    return EventEmitter.prototype.emit.call(this, event, ...args);
  };
  const { spawnSync, execSync, execFileSync } = programs;
  const explained = <T>(run: (...args: never[]) => T) => {
    return (...args: unknown[]): T => {
      try {
        return Reflect.apply(run, programs, args) as T;
      } catch (error) {
        explain(error);
        throw error;
      }
    };
  };
  Object.assign(programs, {
    execSync: explained(execSync),
    execFileSync: explained(execFileSync),
    spawnSync: (...args: unknown[]) => {
      const result = Reflect.apply(spawnSync, programs, args) as ReturnType<typeof spawnSync>;
      explain(result.error);
      return result;
    },
  });
  // `import { spawnSync } from "node:child_process"` has a copy.
  syncBuiltinESMExports();
}

/** Say in the message and the cause of an ENOENT why there is no such program. */
function explain(error: unknown): void {
  if (!(error instanceof Error) || error.cause !== undefined) return;
  const { code, syscall = "", path = "" } = error as NodeJS.ErrnoException;
  const isMissing = code === "ENOENT" && syscall.startsWith("spawn");
  // Node is there: then it was the working directory that is not.
  if (!isMissing || path === "node" || path === process.execPath) return;
  const { message, stack = "" } = error;
  const why = `got ${path}, expected Node: an enclave has no shell and no other program`;
  error.cause = new CloisterError("E_NO_PROGRAM", why);
  error.message = `${message}: E_NO_PROGRAM: ${why}`;
  error.stack = stack.replace(message, () => error.message);
}
