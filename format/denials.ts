/**
 * What the Nitro Secure Module refuses: one entry for each error code of aws-nitro-enclaves-nsm-api `src/api/mod.rs`.
 * Part of the catalogue in errors.ts.
 */
const REPORT = "Report it with the call that failed: cloister should not have sent this.";

export const denials = {
  E_NO_NSM: {
    cause: "This machine has no Nitro Secure Module: no /dev/nsm, and no emulator that stands in for it.",
    fix: "Run the image on Nitro, or with `cloister run --emulator` of the release that built it.",
  },
  E_NSM_INVALID_ARGUMENT: {
    cause: "The Nitro Secure Module does not accept a value of the request.",
    fix: "Correct the value; docs/attestation.md has the limits.",
  },
  E_NSM_INVALID_INDEX: {
    cause: "The Nitro Secure Module has no register of this number.",
    fix: "Use registers 0 to 31; the app's own are 16 to 31.",
  },
  E_NSM_INVALID_RESPONSE: {
    cause: "The Nitro Secure Module could not make an answer of its own.",
    fix: REPORT,
  },
  E_NSM_READ_ONLY_INDEX: {
    cause:
      "The register is locked: it keeps its value until the enclave ends. Registers 0 to 15 are locked from the start.",
    fix: "Extend and lock registers 16 to 31, and each before it is locked.",
  },
  E_NSM_INVALID_OPERATION: {
    cause: "The Nitro Secure Module does not know the request.",
    fix: REPORT,
  },
  E_NSM_BUFFER_TOO_SMALL: {
    cause: "The Nitro Secure Module's answer is larger than the buffer for it.",
    fix: REPORT,
  },
  E_NSM_INPUT_TOO_LARGE: {
    cause: "The request is larger than the Nitro Secure Module takes.",
    fix: "Pass less; of what is longer, pass its hash.",
  },
  E_NSM_INTERNAL_ERROR: {
    cause: "The Nitro Secure Module failed.",
    fix: "Try again; in the emulator, the enclave's console says why (--debug).",
  },
} as const;
