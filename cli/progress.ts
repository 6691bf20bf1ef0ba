/** One line that says what is being done, on a terminal only: in a pipe long work is silent. */
import type { Io } from "./command.ts";

export interface Progress {
  (step: string): void;
  /** Take the line away. */
  done(): void;
}

export function progress(io: Io, quiet = false): Progress {
  const shown = !quiet && io.stderr.isTTY === true && io.env.CI === undefined;
  const show = (step: string) => {
    if (shown) io.stderr.write(`\r\u001b[K${step} …`);
  };
  return Object.assign(show, {
    done: () => {
      if (shown) io.stderr.write("\r\u001b[K");
    },
  });
}
