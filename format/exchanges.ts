/** What goes wrong between a client and the enclave that it attested. Part of the catalogue in errors.ts. */
export const exchanges = {
  E_MESSAGE: {
    cause:
      "An encrypted request or response is not what its sender encrypted, or not in the format it must be in.",
    fix: "Send the request again if it may be carried out twice; whatever lies between may have changed the answer.",
  },
  E_MESSAGE_SIZE: {
    cause: "A request or response is larger than an encrypted one may be.",
    fix: "Move large content in several requests, or over a TLS connection with attestedFetch.",
  },
  E_MESSAGE_REFUSED: {
    cause:
      "The answer to an encrypted request is not an encrypted response. Who sent it is not known, nor whether the " +
      "enclave carried out the request.",
    fix: "Send the request again if it may be carried out twice: the next one attests the enclave again.",
  },
  E_CONNECTION: {
    cause: "The connection to the enclave could not be made, or ended before the answer was there.",
    fix: "Check that the enclave runs and its port is published; for attestedFetch, with `tls: true`, to its very TLS.",
  },
} as const;
