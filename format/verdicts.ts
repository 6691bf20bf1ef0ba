/** What the verifier of attestation documents refuses, step by step. Part of the catalogue in errors.ts. */
export const verdicts = {
  E_ATTESTATION_FORMAT: {
    cause: "These bytes are not an attestation document as Nitro makes them.",
    fix: "Pass the document as the NSM returned it: binary CBOR, not base64, not JSON, nothing before or after it.",
  },
  E_ATTESTATION_ROOT: {
    cause: "The document's chain of certificates begins under a root that you do not trust.",
    fix:
      "A document of an emulated enclave needs its development root, --root dev; one that should come from AWS and " +
      "does not is a forgery.",
  },
  E_ATTESTATION_CHAIN: {
    cause: "The document's certificates do not lead from the trusted root to the key that signed it.",
    fix: "Ask for a new document; if that one fails too, do not trust who sent it. Check this machine's clock.",
  },
  E_ATTESTATION_SIGNATURE: {
    cause: "The document was changed after it was signed, or another key signed it.",
    fix: "Ask for a new document; if that one fails too, do not trust who sent it.",
  },
  E_ATTESTATION_TIME: {
    cause: "The document was not made just now: it is old, or the clocks of enclave and verifier differ.",
    fix: "Ask for a new document; check this machine's clock; allow more with maxAge or --max-age.",
  },
  E_ATTESTATION_DEBUG: {
    cause: "The enclave runs in debug mode: its parent can read its console, and its measurements are zero.",
    fix: "Start the enclave without --debug.",
  },
  E_ATTESTATION_DEVELOPMENT: {
    cause:
      "The image was built for development by `cloister dev`: its parent can replace the app at any time.",
    fix: "Run an image of `cloister build`; in tests of a client, set dangerouslyAllowDevelopment.",
  },
  E_ATTESTATION_NONCE: {
    cause: "The document answers another question than yours: it may be a recording.",
    fix: "Send a fresh random nonce with each request, and verify with that very one.",
  },
  E_ATTESTATION_PCRS: {
    cause: "Something else runs in the enclave than what you accept.",
    fix: "Accept this release's measurements too, as `cloister build --json` prints them, or run the one you accept.",
  },
  E_ATTESTATION_BINDING: {
    cause: "The document vouches for another public key or other user data than yours.",
    fix: "Compare with the bytes that the enclave put into the document; whatever lies between may have replaced them.",
  },
  E_ATTESTATION_POLICY: {
    cause: "What is accepted of an enclave is not said, or is said so that it accepts nothing or anything.",
    fix:
      "Name PCR0, PCR1 and PCR2 as `cloister build --json` prints them, or signers by PCR8; never the zeros of debug " +
      "mode.",
  },
  E_ATTESTATION_FETCH: {
    cause: "The enclave's attestation endpoint did not answer as it should.",
    fix: "Check that the enclave runs, that its port is published, and that nothing in between rewrites answers.",
  },
  E_ATTESTATION_READ: {
    cause: "A file that verification needs cannot be read.",
    fix: "Check the path and its permissions.",
  },
} as const;
