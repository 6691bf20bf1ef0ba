/** What goes wrong where an app wants more than an enclave has: connections out of it, other programs. Part of the catalogue in errors.ts. */
export const departures = {
  E_EGRESS_DENIED: {
    cause: "The app asked for a host or port that its measured allow-list does not have.",
    fix: "Add it to egress in cloister.config.ts and build again; the image then has other measurements.",
  },
  E_EGRESS_PROXY: {
    cause:
      "The enclave's parent does not carry outbound connections: nothing answers on its vsock port 9002, or not as it should.",
    fix: "Start the enclave with `cloister run`, or beside another launcher run `cloister proxy --cid CID FILE`.",
  },
  E_EGRESS_UDP: {
    cause: "The app sent a UDP datagram out of the enclave, which has TCP only.",
    fix: "Use the service over TCP or HTTP; names are resolved without UDP. The loopback has UDP.",
  },
  E_NO_PROGRAM: {
    cause:
      "The app started a program that the enclave does not have: it has Node, no shell and no other program, and none that " +
      "a script's first line may name.",
    fix: "Do it in JavaScript, or start Node itself: `spawn(process.execPath, …)`, `fork(…)`; `exec` needs a shell.",
  },
  E_OUTBOUND: {
    cause: "Enclave and parent do not speak the same protocol on vsock port 9002.",
    fix: "Run the image with the cloister that built it; another program may listen on that port.",
  },
} as const;
