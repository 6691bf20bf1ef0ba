/** The process around `main`: standard streams, signals, exit status. */
import process from "node:process";
import { main } from "./main.ts";

const parent = parentToFollow(process.env, process.argv[2]);
delete process.env.CLOISTER_WRAPPER_PID;
if (parent !== undefined && process.platform === "linux") {
  const { dieWithParent } = await import("../linux/process.ts");
  dieWithParent("SIGTERM", parent);
}

function parentToFollow({ CLOISTER_WRAPPER_PID, npm_lifecycle_event }: NodeJS.ProcessEnv, verb = "") {
  // bin/cloister on an older Node started this process and cannot pass a SIGKILL on by itself.
  if (CLOISTER_WRAPPER_PID !== undefined) return Number(CLOISTER_WRAPPER_PID);
  // npm passes a SIGTERM to the shell of its script, which ends and passes nothing on: the port would stay taken.
  const isScript = npm_lifecycle_event !== undefined && ["dev", "run"].includes(verb);
  return isScript ? process.ppid : undefined;
}

let interrupted: AbortController | undefined;

function listenToSignals(): AbortController {
  const controller = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      // The second one means now: the enclave dies with this process.
      if (controller.signal.aborted) process.exit(signal === "SIGINT" ? 130 : 143);
      controller.abort(signal);
    });
  }
  return controller;
}

/** Where the folder was removed under the shell: its name, so that what needs it says that it is not there. */
function currentDirectory(): string {
  try {
    return process.cwd();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return process.env.PWD ?? "/";
    throw error;
  }
}

// `cloister … | head`: the reader has what it wanted.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  process.exit(error.code === "EPIPE" ? 0 : 1);
});

// Pipes and files are written synchronously on Linux, so that nothing is lost by exiting here.
process.exit(
  await main(process.argv.slice(2), {
    stdout: process.stdout,
    stderr: process.stderr,
    stdin: process.stdin,
    env: process.env,
    directory: currentDirectory(),
    // A verb that never asks for it, such as a build, is ended by the first signal.
    get signal() {
      interrupted ??= listenToSignals();
      return interrupted.signal;
    },
  }),
);
