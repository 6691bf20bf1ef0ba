/**
 * The one door to `node:ffi` (Node 26, stability 1): libc functions of this process, errno, memory views.
 * Source of signatures: the man pages, section 2 and 3. An FFI call costs about 0.16 µs.
 */
import type * as Ffi from "node:ffi";
import { constants } from "node:os";
import { SystemError } from "./failure.ts";

export { SystemError };

// The module prints one ExperimentalWarning a process; the exact Node is pinned, so users have nothing to act on.
function loadFfi(): typeof Ffi {
  const emitWarning = process.emitWarning;
  process.emitWarning = () => {};
  try {
    return process.getBuiltinModule("node:ffi") as typeof Ffi;
  } finally {
    process.emitWarning = emitWarning;
  }
}

export const ffi = loadFfi();

/** On another system the modules above can be imported, by programs that call none of them: what is called throws ENOSYS. */
const isLinux = process.platform === "linux";

/** Bind functions of libc: `const { mount } = bind({ mount: { arguments: [...], return: "i32" } })`. */
export function bind<const T extends Ffi.FunctionDefinitions>(
  definitions: T,
): Ffi.WrappedFunctionsFromDefinitions<T> {
  if (isLinux) return ffi.dlopen(null, definitions).functions;
  return Object.fromEntries(Object.keys(definitions).map((name) => [name, () => refuse(name)])) as never;
}

function refuse(name: string): never {
  throw new SystemError(name, constants.errno.ENOSYS, `on ${process.platform}`);
}

const { __errno_location } = bind({ __errno_location: { arguments: [], return: "pointer" } });
// errno is one int a thread, and each worker thread evaluates this module on its own.
const errnoAddress = isLinux ? __errno_location() : 0n;

/** errno of the FFI call just made. */
export function errno(): number {
  return ffi.getInt32(errnoAddress, 0);
}

/** Return a call's result, or throw its errno. `detail` names the object: a path, a port. */
export function check(result: number, syscall: string, detail = ""): number {
  if (result < 0) throw new SystemError(syscall, errno(), detail);
  return result;
}
