/** Debug mode or production mode, and what else the unmeasured end of the cmdline says. */
import { TAIL_DEBUG_MODE } from "../format/abi.ts";

/**
 * Words that an emulator appended: those after the first `virtio_mmio.device=`, which is where every hypervisor's
 * addition begins. What lies before is measured; a word there that looks like ours is the app builder's own and is not
 * taken for the hypervisor's.
 */
export function tailWords(cmdline: string): readonly string[] {
  const words = cmdline.trim().split(/\s+/);
  const first = words.findIndex((word) => word.startsWith("virtio_mmio.device="));
  return first < 0 ? [] : words.slice(first);
}

/** `pcr0`: from /dev/nsm where there is one; then it alone decides, for it is the hardware's word. */
export function isDebugMode(cmdline: string, pcr0: Uint8Array | undefined): boolean {
  // AWS user guide, "Cryptographic attestation": an enclave in debug mode has PCRs of zeros.
  if (pcr0 !== undefined) return pcr0.every((byte) => byte === 0);
  return tailWords(cmdline).includes(TAIL_DEBUG_MODE);
}
