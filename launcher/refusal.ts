/** A failed step of a launch as the error that its user sees. */

import { constants } from "node:os";
import { CloisterError, type ErrorCode } from "../format/errors.ts";
import { NE_ERR, NitroError } from "./device.ts";

/** Linux's own numbers that the driver or the hypervisor answers with, where they mean one thing. */
const { EFAULT, EINVAL, EIO, EMFILE, ENFILE, ENODEV, ENOMEM, ENOTTY, ETIMEDOUT } = constants.errno;

const CODES: ReadonlyMap<number, ErrorCode> = new Map<number, ErrorCode>([
  [NE_ERR.VCPU_ALREADY_USED, "E_NE_VCPU_ALREADY_USED"],
  [NE_ERR.VCPU_NOT_IN_CPU_POOL, "E_NE_VCPU_NOT_IN_CPU_POOL"],
  [NE_ERR.VCPU_INVALID_CPU_CORE, "E_NE_VCPU_INVALID_CPU_CORE"],
  [NE_ERR.INVALID_MEM_REGION_SIZE, "E_NE_INVALID_MEM_REGION_SIZE"],
  [NE_ERR.INVALID_MEM_REGION_ADDR, "E_NE_INVALID_MEM_REGION_ADDR"],
  [NE_ERR.UNALIGNED_MEM_REGION_ADDR, "E_NE_UNALIGNED_MEM_REGION_ADDR"],
  [NE_ERR.MEM_REGION_ALREADY_USED, "E_NE_MEM_REGION_ALREADY_USED"],
  [NE_ERR.MEM_NOT_HUGE_PAGE, "E_NE_MEM_NOT_HUGE_PAGE"],
  [NE_ERR.MEM_DIFFERENT_NUMA_NODE, "E_NE_MEM_DIFFERENT_NUMA_NODE"],
  [NE_ERR.MEM_MAX_REGIONS, "E_NE_MEM_MAX_REGIONS"],
  [NE_ERR.NO_MEM_REGIONS_ADDED, "E_NE_NO_MEM_REGIONS_ADDED"],
  [NE_ERR.NO_VCPUS_ADDED, "E_NE_NO_VCPUS_ADDED"],
  [NE_ERR.ENCLAVE_MEM_MIN_SIZE, "E_NE_ENCLAVE_MEM_MIN_SIZE"],
  [NE_ERR.FULL_CORES_NOT_USED, "E_NE_FULL_CORES_NOT_USED"],
  [NE_ERR.NOT_IN_INIT_STATE, "E_NE_NOT_IN_INIT_STATE"],
  [NE_ERR.INVALID_VCPU, "E_NE_INVALID_VCPU"],
  [NE_ERR.NO_CPUS_AVAIL_IN_POOL, "E_NE_NO_CPUS_AVAIL_IN_POOL"],
  [NE_ERR.INVALID_PAGE_SIZE, "E_NE_INVALID_PAGE_SIZE"],
  [NE_ERR.INVALID_FLAG_VALUE, "E_NE_INVALID_FLAG_VALUE"],
  [NE_ERR.INVALID_ENCLAVE_CID, "E_NE_INVALID_ENCLAVE_CID"],
  [EFAULT, "E_NE_FAULT"],
  [EINVAL, "E_NE_INVALID"],
  [EIO, "E_NE_OTHER_PROCESS"],
  [EMFILE, "E_NE_DESCRIPTORS"],
  [ENFILE, "E_NE_DESCRIPTORS"],
  [ENODEV, "E_NO_DEVICE"],
  [ENOMEM, "E_NE_NO_MEMORY"],
  [ENOTTY, "E_NE_UNKNOWN_IOCTL"],
  [ETIMEDOUT, "E_NE_TIMEOUT"],
]);

/**
 * The catalogue's error for what a device threw: the driver's own numbers each have an entry, a refused image has its
 * reason as `cause`; anything else that is no refusal stays as it is.
 */
export function explainRefusal(error: unknown): unknown {
  if (!(error instanceof NitroError)) return error;
  if (error.cause instanceof CloisterError) return error.cause;
  return new CloisterError(CODES.get(error.errno) ?? "E_NE_IOCTL", error.message, { cause: error });
}
