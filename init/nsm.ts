/** What the boot asks of the Nitro Secure Module: PCR0, and entropy for the kernel. */
import { readFileSync } from "node:fs";
import { CID_PARENT, PORT_NSM, TAIL_EMULATED_NSM } from "../format/abi.ts";
import { decodeNsmResponse, encodeNsmRequest, type NsmResponse } from "../format/nsm.ts";
import { addEntropy } from "../linux/random.ts";
import { connectVsock } from "../linux/vsock.ts";
import { DeviceModule } from "../runtime/device.ts";
import { EmulatedModule, type NsmModule } from "../runtime/module.ts";
import { tailWords } from "./mode.ts";

const HWRNG_CURRENT = "/sys/class/misc/hw_random/rng_current";
const NSM_HWRNG = "nsm-hwrng";

/** This machine's module: /dev/nsm where there is one; else the emulator's, if the emulator says that it has one. */
export function openModule(cmdline: string): NsmModule | undefined {
  const device = DeviceModule.open();
  if (device !== undefined) return device;
  if (!tailWords(cmdline).includes(TAIL_EMULATED_NSM)) return undefined;
  return new EmulatedModule(() => connectVsock({ cid: CID_PARENT, port: PORT_NSM }));
}

/** PCR0 by the hardware's word; undefined where this machine has none. Throws where it has one that refuses. */
export function readPcr0(module: NsmModule | undefined): Uint8Array | undefined {
  if (!(module instanceof DeviceModule)) return undefined;
  const response = decodeNsmResponse(module.exchangeNow(encodeNsmRequest({ type: "DescribePCR", index: 0 })));
  if (response.type === "DescribePCR") return response.data;
  throw refusal("DescribePCR", response);
}

/**
 * Seed the kernel's generator with credited bytes of the module. Without a module the kernel has the CPU's generator
 * (`random.trust_cpu=on`). Returns what to say about it; rejects where the module refuses.
 */
export async function seedEntropy(module: NsmModule | undefined): Promise<string | undefined> {
  if (module === undefined) return "entropy: no NSM here, the kernel trusts the CPU's generator";
  const response = decodeNsmResponse(await module.exchange(encodeNsmRequest({ type: "GetRandom" })));
  if (response.type !== "GetRandom") throw refusal("GetRandom", response);
  addEntropy(response.random);
  if (!(module instanceof DeviceModule)) return "entropy: from the emulator";
  const current = readFileSync(HWRNG_CURRENT, "utf8").trim();
  return current === NSM_HWRNG ? undefined : `entropy: rng_current: got ${current}, expected ${NSM_HWRNG}`;
}

function refusal(command: string, response: NsmResponse): Error {
  const got = response.type === "Error" ? response.error : response.type;
  return new Error(`NSM: ${command}: got ${got}`);
}
