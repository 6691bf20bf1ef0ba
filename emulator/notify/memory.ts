/** Memory of a process of the command as enclave memory: are its pages what the driver takes, and what is in them. */

import { readFileSync } from "node:fs";
import { constants } from "node:os";
import type { ByteReader } from "../../format/reader.ts";
import { MEMORY_REGION_UNIT, NE_ERR, NitroError } from "../../launcher/device.ts";
import { readPeer } from "../../linux/peer.ts";
import type { UserMemoryRegion } from "../driver.ts";

/** A mapping of a process. Addresses and sizes in bytes. */
interface Mapping {
  readonly start: bigint;
  readonly end: bigint;
  readonly pageSize: bigint;
}

/** Mappings with pages that are no ordinary ones, from /proc/PID/smaps (proc(5)). Throws ENOENT. */
function hugeMappings(pid: number): Mapping[] {
  const text = readFileSync(`/proc/${pid}/smaps`, "latin1");
  const pattern = /^([0-9a-f]+)-([0-9a-f]+) [^\n]*\n(?:[A-Z][^\n]*\n)*?KernelPageSize: +(\d+) kB$/gm;
  return [...text.matchAll(pattern)]
    .map(([, start, end, kib]) => ({
      start: BigInt(`0x${start}`),
      end: BigInt(`0x${end}`),
      pageSize: BigInt(kib ?? 0) * 1024n,
    }))
    .filter(({ pageSize }) => pageSize > 4096n);
}

/**
 * The driver's look at the pages behind regions. Where they lie in physical memory only root may see, so a region counts as
 * one piece; NUMA nodes are not told apart.
 */
export class PageChecker {
  /** /proc/PID/smaps costs milliseconds, and an enclave has a region for each page: one look serves until it fails. */
  readonly #known = new Map<number, Mapping[]>();

  check({ address, size }: UserMemoryRegion, pid: number): number {
    const covers = () => cover(this.#known.get(pid) ?? [], address, address + size);
    let mappings = covers();
    if (mappings === undefined) {
      this.#known.set(pid, hugeMappings(pid));
      mappings = covers();
    }
    if (mappings === undefined) throw refusal(...missing(pid, address, size));
    for (const { start, pageSize } of mappings) {
      const first = address > start ? address : start;
      if (pageSize % BigInt(MEMORY_REGION_UNIT) !== 0n || first % pageSize !== 0n) {
        const text = `pages are ${pageSize} bytes, and 0x${first.toString(16)} is no multiple of that`;
        throw refusal(NE_ERR.INVALID_PAGE_SIZE, text);
      }
    }
    return 1;
  }

  /** The process is gone. */
  forget(pid: number): void {
    this.#known.delete(pid);
  }
}

/** The mappings that a range lies in without a gap, or undefined. */
function cover(mappings: readonly Mapping[], start: bigint, end: bigint): Mapping[] | undefined {
  const found = mappings.filter((mapping) => mapping.start < end && start < mapping.end);
  let position = start;
  for (const mapping of found) {
    if (mapping.start > position) return undefined;
    position = mapping.end;
  }
  return position >= end ? found : undefined;
}

/** What the driver says of a range that is not all huge pages: EFAULT where it is no memory at all. */
function missing(pid: number, address: bigint, size: bigint): [number, string] {
  const hex = `0x${address.toString(16)}`;
  try {
    readPeer(pid, address, new Uint8Array(1));
  } catch {
    return [constants.errno.EFAULT, `${hex} + ${size} is not mapped`];
  }
  return [NE_ERR.MEM_NOT_HUGE_PAGE, `${hex} + ${size} is not all huge pages`];
}

function refusal(errno: number, text: string): NitroError {
  const ioctl = "NE_SET_USER_MEMORY_REGION";
  return new NitroError(ioctl, errno, `${ioctl}: ${text}`);
}

/** Regions of a process one after the other, from `start` on; each read is a copy. Reads throw SystemError ESRCH. */
export function peerReader(pid: number, regions: readonly UserMemoryRegion[], start: number): ByteReader {
  const total = regions.reduce((sum, { size }) => sum + Number(size), 0);
  return {
    size: Math.max(0, total - start),
    read(offset, length) {
      const bytes = Buffer.allocUnsafe(Math.max(0, Math.min(length, total - start - offset)));
      let position = start + offset;
      let done = 0;
      for (const { address, size } of regions) {
        if (done === bytes.length) break;
        const count = Math.min(bytes.length - done, Number(size) - position);
        if (count > 0) {
          readPeer(pid, address + BigInt(position), bytes.subarray(done, done + count));
          done += count;
          position += count;
        }
        position -= Number(size);
      }
      return bytes;
    },
  };
}
