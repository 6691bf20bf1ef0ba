/**
 * The process that becomes the command: it puts the filter on itself, hands the listener over and turns into the program
 * whose path and words it was given. Run by `command.ts`, never imported.
 */
import { closeDescriptor } from "../../linux/descriptor.ts";
import { sendMessage } from "../../linux/message.ts";
import { dieWithParent, resetSignal } from "../../linux/process.ts";
import { installFilter } from "../../linux/seccomp.ts";
import { notifyFilter } from "./filter.ts";

const [, , parent, handover, program = "", ...words] = process.argv;
// A supervisor that is gone answers no call: what is under its filter would fail in strange ways.
dieWithParent("SIGKILL", Number(parent));
// Node ignores them, and what is ignored stays so in the next program.
resetSignal("SIGPIPE");
resetSignal("SIGXFSZ");
const socket = Number(handover);
const filter = notifyFilter();
const message = new Uint8Array(1);
try {
  // From the filter on, a call that it notifies of waits until the listener has arrived: nothing may come between.
  const listener = installFilter(filter);
  sendMessage(socket, message, [listener]);
} catch (error) {
  sendMessage(socket, Buffer.from(error instanceof Error ? error.message : String(error)));
  process.exit(1);
}
closeDescriptor(socket);
if (process.execve === undefined) throw new Error("BUG: this Node has no process.execve");
try {
  process.execve(program, words, process.env);
} catch (error) {
  // ENOEXEC: a script without its first line. The status is what shells give for it.
  process.stderr.write(`cloister emulate: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exit(126);
}
