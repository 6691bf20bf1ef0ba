/** The entry module. Who asks for what may be signed here is yours to decide: this one signs everything. */
import { attest } from "cloister/runtime";
import { createSigner } from "./signer.ts";

export default await createSigner(attest);
