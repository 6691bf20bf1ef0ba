/** The mark by which documents of this enclave are told from a release's. */
import { DEVELOPMENT_MARK, DEVELOPMENT_REGISTER } from "../../format/development.ts";
import { decodeNsmResponse, encodeNsmRequest, type NsmRequest } from "../../format/nsm.ts";
import type { NsmModule } from "../../runtime/module.ts";

/**
 * Extend the register and lock it; a machine without a module attests nothing. Rejects where the module refuses: what
 * cannot be marked must not run.
 */
export async function markDevelopment(module: NsmModule | undefined): Promise<void> {
  if (module === undefined) return;
  const index = DEVELOPMENT_REGISTER;
  await ask(module, { type: "ExtendPCR", index, data: new TextEncoder().encode(DEVELOPMENT_MARK) });
  await ask(module, { type: "LockPCR", index });
}

async function ask(module: NsmModule, request: NsmRequest): Promise<void> {
  const response = decodeNsmResponse(await module.exchange(encodeNsmRequest(request)));
  if (response.type === request.type) return;
  const got = response.type === "Error" ? response.error : response.type;
  throw new Error(`NSM: ${request.type} of register ${DEVELOPMENT_REGISTER}: got ${got}`);
}
