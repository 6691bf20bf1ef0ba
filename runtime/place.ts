/** Where this code runs: init says so at boot; anywhere else there is no enclave. */
import { CloisterError } from "../format/errors.ts";
import type { NsmModule } from "./module.ts";
import type { Vsock } from "./vsock.ts";

export interface Place {
  readonly debug: boolean;
  /** Absent where this machine has none. */
  readonly nsm?: NsmModule | undefined;
  readonly vsock: Vsock;
  /** The app says that it is ready. */
  readonly ready?: () => void;
}

let place: Place | undefined;

/** Called by init, once; by tests, with undefined to leave again. */
export function enterEnclave(entered: Place | undefined): void {
  place = entered;
}

/** Throws E_NOT_IN_ENCLAVE; `what` is the function of the runtime that was called. */
export function inEnclave(what: string): Place {
  if (place !== undefined) return place;
  throw new CloisterError("E_NOT_IN_ENCLAVE", `${what}: this process is no enclave`);
}
