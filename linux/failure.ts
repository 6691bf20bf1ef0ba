/** A system call's error: its name and number, as Node has them. */
import { constants } from "node:os";

const names = new Map<number, string>(Object.entries(constants.errno).map(([name, value]) => [value, name]));

/** A failed system call: `code` is Node's name for it (`ECONNRESET`), `errno` the positive number. */
export class SystemError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;

  constructor(syscall: string, number: number, detail = "") {
    const code = names.get(number) ?? `ERRNO_${number}`;
    super(`${syscall}${detail && `(${detail})`}: ${code}`);
    this.name = "SystemError";
    this.code = code;
    this.errno = number;
    this.syscall = syscall;
  }
}
