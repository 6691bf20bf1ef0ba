/** How much of the parent an enclave gets. */
import { EIF_LOAD_OFFSET, ENCLAVE_MEMORY_MIN } from "../format/abi.ts";
import { CloisterError } from "../format/errors.ts";
import { MEMORY_REGION_UNIT } from "./device.ts";
import type { Image } from "./image.ts";

const MIB = 1024 * 1024;
/** More than any instance has; an image may ask for anything. */
const CPUS_MAX = 4096;

/**
 * Bytes of enclave memory, a multiple of 2 MiB: what the user says, else what the image asks for. Throws
 * E_MEMORY_TOO_SMALL below the driver's minimum, and where the image itself does not fit.
 */
export function chooseMemory(image: Image, memoryMiB?: number): number {
  const wanted = memoryMiB === undefined ? Number(image.defaultMemory) : memoryMiB * MIB;
  const least = roundUp(Math.max(ENCLAVE_MEMORY_MIN, EIF_LOAD_OFFSET + image.size));
  if (wanted >= least) return roundUp(wanted);
  const parts = `the image has ${mib(image.size)} MiB, and the first ${mib(EIF_LOAD_OFFSET)} MiB are the hypervisor's`;
  const message = `enclave memory: got ${mib(wanted)} MiB, expected ${mib(least)} MiB or more: ${parts}`;
  throw new CloisterError("E_MEMORY_TOO_SMALL", message, {
    fix: `Give the enclave more memory: --memory ${mib(least)}M at the very least, four times the image to be safe.`,
  });
}

/** What to do about a boot that fails in less memory than the image asks for; undefined in as much. `memory`: bytes. */
export function lessThanAsked({ defaultMemory }: Image, memory: number): string | undefined {
  const asked = Number(defaultMemory);
  if (memory >= asked) return undefined;
  return `It had ${mib(memory)} MiB, and the image asks for ${mib(asked)}: leave --memory out, or give it that much.`;
}

/** What to ask NE_ADD_VCPU for: 0 lets the driver choose. */
export function chooseCpus(image: Image, cpus?: number | readonly number[]): readonly number[] {
  if (typeof cpus === "object") return cpus;
  const count = cpus ?? Math.min(Number(image.defaultCpus), CPUS_MAX);
  return new Array<number>(count).fill(0);
}

function roundUp(bytes: number): number {
  return Math.ceil(bytes / MEMORY_REGION_UNIT) * MEMORY_REGION_UNIT;
}

function mib(bytes: number): string {
  return String(Math.round((bytes / MIB) * 10) / 10);
}
