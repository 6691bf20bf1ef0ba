/** Single keys of a terminal, without Enter. */
import type { Terminal } from "./command.ts";

const CTRL_C = "\u0003";
const CTRL_D = "\u0004";

/** Call back for each key; Ctrl-C and Ctrl-D are `q`. Undefined where there is no terminal to read from. */
export function readKeys(
  terminal: Terminal | undefined,
  onKey: (key: string) => void,
): Disposable | undefined {
  if (terminal?.isTTY !== true || terminal.setRawMode === undefined) return undefined;
  const read = (chunk: Buffer | string) => {
    for (const key of chunk.toString()) onKey(key === CTRL_C || key === CTRL_D ? "q" : key.toLowerCase());
  };
  terminal.setRawMode(true);
  terminal.on("data", read);
  terminal.resume();
  return {
    [Symbol.dispose]() {
      terminal.off("data", read);
      terminal.setRawMode?.(false);
      terminal.pause();
    },
  };
}
