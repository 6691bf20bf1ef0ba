/** struct sockaddr_vm in calls of the command, and what else of theirs has a length of its own. */
import { constants } from "node:os";
import { SystemError } from "../../linux/ffi.ts";
import { decodeAddress, encodeAddress, SOCKADDR_VM_BYTES, type VsockAddress } from "../../linux/vsock.ts";
import type { Call } from "./call.ts";
import { AF_VSOCK } from "./filter.ts";

const { EAFNOSUPPORT, EINVAL } = constants.errno;

/** A call on an AF_VSOCK socket that fails. */
export function failure(syscall: string, number: number): SystemError {
  return new SystemError(syscall, number, "AF_VSOCK");
}

/** The address in the second argument, its length in the third. Throws SystemError: EFAULT, EINVAL, EAFNOSUPPORT. */
export function readAddress(call: Call): VsockAddress {
  if (call.uint(2) < SOCKADDR_VM_BYTES) throw failure("address", EINVAL);
  const bytes = call.read(call.word(1), SOCKADDR_VM_BYTES);
  if (new DataView(bytes.buffer).getUint16(0, true) !== AF_VSOCK) throw failure("address", EAFNOSUPPORT);
  return decodeAddress(bytes);
}

/** To where the second argument points, its length to where the third does. */
export function writeAddress(call: Call, address: VsockAddress): void {
  writeSized(call, 1, 2, encodeAddress(address));
}

/** As the kernel does: as many bytes as there is room for, and how many there were. Throws SystemError EFAULT. */
export function writeSized(call: Call, pointer: number, lengthPointer: number, bytes: Uint8Array): void {
  const room = new Uint32Array(call.read(call.word(lengthPointer), 4).buffer);
  call.write(call.word(pointer), bytes.subarray(0, room[0]));
  call.write(call.word(lengthPointer), new Uint8Array(new Uint32Array([bytes.length]).buffer));
}
