/** What the boot asks of the Nitro Secure Module: PCR0, and entropy for the kernel. */
import { closeSync, existsSync, openSync, readFileSync } from "node:fs";
import { decodeNsmResponse, encodeNsmRequest, type NsmRequest, type NsmResponse } from "../format/nsm.ts";
import { exchangeNsm, NSM_DEVICE } from "../linux/nsm.ts";
import { addEntropy } from "../linux/random.ts";

const HWRNG_CURRENT = "/sys/class/misc/hw_random/rng_current";
const NSM_HWRNG = "nsm-hwrng";

/** PCR0 by the module, or undefined where this machine has none. Throws where it has one that refuses. */
export function readPcr0(): Uint8Array | undefined {
  const response = ask({ type: "DescribePCR", index: 0 });
  if (response === undefined) return undefined;
  if (response.type === "DescribePCR") return response.data;
  throw refusal("DescribePCR", response);
}

/**
 * Seed the kernel's generator with credited bytes of the module. Without a module the kernel has the CPU's generator
 * (`random.trust_cpu=on`). Returns what to say about it; throws where the module refuses.
 */
export function seedEntropy(): string | undefined {
  const response = ask({ type: "GetRandom" });
  if (response === undefined) return "entropy: no NSM here, the kernel trusts the CPU's generator";
  if (response.type !== "GetRandom") throw refusal("GetRandom", response);
  addEntropy(response.random);
  const current = readFileSync(HWRNG_CURRENT, "utf8").trim();
  return current === NSM_HWRNG ? undefined : `entropy: rng_current: got ${current}, expected ${NSM_HWRNG}`;
}

function ask(request: NsmRequest): NsmResponse | undefined {
  if (!existsSync(NSM_DEVICE)) return undefined;
  const fd = openSync(NSM_DEVICE, "r+");
  try {
    return decodeNsmResponse(exchangeNsm(fd, encodeNsmRequest(request)));
  } finally {
    closeSync(fd);
  }
}

function refusal(command: string, response: NsmResponse): Error {
  const got = response.type === "Error" ? response.error : response.type;
  return new Error(`NSM: ${command}: got ${got}`);
}
