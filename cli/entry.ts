/** The process around `main`: standard streams, signals, exit status. */
import process from "node:process";
import { main } from "./main.ts";

// bin/cloister on an older Node started this process and cannot pass a SIGKILL on by itself.
const wrapper = process.env.CLOISTER_WRAPPER_PID;
if (wrapper !== undefined) {
  delete process.env.CLOISTER_WRAPPER_PID;
  const { dieWithParent } = await import("../linux/process.ts");
  dieWithParent("SIGTERM", Number(wrapper));
}

const interrupted = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    // The second one means now: the enclave dies with this process.
    if (interrupted.signal.aborted) process.exit(signal === "SIGINT" ? 130 : 143);
    interrupted.abort(signal);
  });
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
    directory: process.cwd(),
    signal: interrupted.signal,
  }),
);
