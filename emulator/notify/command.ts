/** Starts a command under the filter and gets the listener of its calls. */
import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, constants, statSync } from "node:fs";
import { delimiter, extname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { CloisterError } from "../../format/errors.ts";
import { closeDescriptor, makeSocketPair } from "../../linux/descriptor.ts";
import { watchReadable } from "../../linux/event.ts";
import { receiveMessage } from "../../linux/message.ts";

/** The child's end of the socket that the listener comes through. */
const HANDOVER_DESCRIPTOR = 3;

export interface Command {
  readonly child: ChildProcess;
  /** Descriptor: the caller's to close. */
  readonly listener: number;
}

/**
 * Start `argv` with this process's standard streams. Rejects with CloisterError: E_COMMAND (no such program),
 * E_SECCOMP (this kernel or container does not let a process be watched).
 */
export async function startCommand(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<Command> {
  const [name = "", ...words] = argv;
  const program = findProgram(name, env.PATH ?? "");
  const script = fileURLToPath(new URL(`child${extname(import.meta.url)}`, import.meta.url));
  const [ours, theirs] = makeSocketPair();
  const args = [script, String(process.pid), String(HANDOVER_DESCRIPTOR), program, name, ...words];
  const child = spawn(process.execPath, ["--no-warnings", ...args], {
    stdio: ["inherit", "inherit", "inherit", theirs],
    env,
  });
  closeDescriptor(theirs);
  const handover = await receiveListener(ours);
  if (typeof handover === "number") return { child, listener: handover };
  const message = `${name}: got no seccomp listener (${handover}), expected this kernel to give one`;
  throw new CloisterError("E_SECCOMP", message);
}

/** More than any message of the child. */
const MESSAGE_MAX = 1024;

/** The descriptor, or why there is none. Closes `socket`. */
async function receiveListener(socket: number): Promise<number | string> {
  const { promise, resolve, reject } = Promise.withResolvers<number | string>();
  const watcher = watchReadable(socket, () => {
    try {
      const buffer = Buffer.alloc(MESSAGE_MAX);
      const message = receiveMessage(socket, buffer);
      if (message === undefined) return;
      resolve(message.descriptors[0] ?? (buffer.toString("utf8", 0, message.bytes) || "it ended before"));
    } catch (error) {
      reject(error);
    }
  });
  return promise.finally(() => watcher.close());
}

/** As a shell looks a command up. Throws E_COMMAND. */
function findProgram(name: string, path: string): string {
  const places = name.includes("/")
    ? [resolve(name)]
    : path.split(delimiter).map((folder) => join(folder, name));
  const found = places.find(isProgram);
  if (found !== undefined) return found;
  const where = name.includes("/") ? name : `${name} in PATH`;
  throw new CloisterError("E_COMMAND", `${where}: got nothing, expected a program`);
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
