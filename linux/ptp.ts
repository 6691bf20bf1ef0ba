/**
 * The hypervisor's clock as /dev/ptp0: kernel Documentation/driver-api/ptp.rst, drivers/ptp/ptp_kvm_common.c. There where
 * the hypervisor answers KVM_HC_CLOCK_PAIRING.
 */
import { openSync } from "node:fs";
import { readClock } from "./clock.ts";

export const PTP_DEVICE = "/dev/ptp0";

/** A descriptor, close-on-exec; undefined where this machine has no such clock. Throws Node's errors (EACCES). */
export function openPtp(path = PTP_DEVICE): number | undefined {
  try {
    return openSync(path, "r");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // ENXIO, ENODEV: a node without its driver.
    if (code === "ENOENT" || code === "ENXIO" || code === "ENODEV") return undefined;
    throw error;
  }
}

/** FD_TO_CLOCKID of clock_getres(2), "Dynamic clocks". */
export function dynamicClockId(fd: number): number {
  return (~fd << 3) | 3;
}

/** Its time, Unix milliseconds. Throws SystemError: EOPNOTSUPP (the hypervisor has no time to give now), ENODEV. */
export function readPtp(fd: number): number {
  return readClock(dynamicClockId(fd));
}
