import { spawn } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:os";
import { CloisterError } from "../format/errors.ts";
import { command } from "./command.ts";

export const node = command({
  name: "node",
  operands: "-- [WORD…]",
  options: {},
  examples: ["cloister node -- --test", "cloister node -- tools/release.ts"],
  async run(io, operands) {
    // This process runs on it already: bin/cloister saw to that.
    const child = spawn(process.execPath, operands, { cwd: io.directory, env: io.env, stdio: "inherit" });
    // A terminal sends SIGINT to the child too: passing it on would ask twice.
    io.signal.addEventListener("abort", () => {
      if (io.signal.reason !== "SIGINT" || !process.stdin.isTTY) child.kill(io.signal.reason);
    });
    const [status, signal] = await once(child, "exit").catch((cause: NodeJS.ErrnoException) => {
      throw new CloisterError("E_COMMAND", `${process.execPath}: got ${cause.code}, expected a program`, {
        cause,
      });
    });
    return signal === null ? status : 128 + constants.signals[signal as NodeJS.Signals];
  },
});
