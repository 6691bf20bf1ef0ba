/** A failed step of a launch as the error that its user sees. */
import { CloisterError, type ErrorCode } from "../format/errors.ts";
import { NE_ERR, NitroError } from "./device.ts";

type DriverCode = `E_NE_${keyof typeof NE_ERR}`;

const driverCodes: ReadonlyMap<number, ErrorCode> = new Map(
  Object.entries(NE_ERR).map(([name, errno]) => [errno, `E_NE_${name}` as DriverCode]),
);

/**
 * The catalogue's error for what a device threw: the driver's own numbers each have an entry, a refused image has its
 * reason as `cause`; anything else that is no refusal stays as it is.
 */
export function explainRefusal(error: unknown): unknown {
  if (!(error instanceof NitroError)) return error;
  if (error.cause instanceof CloisterError) return error.cause;
  return new CloisterError(driverCodes.get(error.errno) ?? "E_NE_IOCTL", error.message, { cause: error });
}
