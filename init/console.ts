/** The serial console, which in production mode nobody may be draining: a line that does not fit is dropped. */
import { constants, openSync, writeSync } from "node:fs";

/**
 * Open the console for lines. Non-blocking: the UART is slow and its buffer ends, and a write that waits for it would stop
 * the enclave.
 */
export function openConsole(): number {
  return openSync("/dev/console", constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
}

/** Write one line, or what of it the console takes. */
export function writeConsole(fd: number, line: string): void {
  try {
    writeSync(fd, `${line}\n`);
  } catch {
    // EAGAIN: full. EIO: the UART is gone. Whoever reads the console misses a line; nothing depends on it.
  }
}
