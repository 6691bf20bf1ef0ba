/** Memory of this process as enclave memory: allocated for the launcher, read by the hypervisor. */
import type { ByteReader } from "../format/reader.ts";
import { MEMORY_REGION_UNIT, type MemoryRegion } from "../launcher/device.ts";
import { adviseMemory, MADV_DONTNEED, type Mapping, mapAnonymous } from "../linux/memory.ts";

/** Regions handed out by this device, and the mappings behind them. */
export class RegionAllocator {
  readonly #mappings = new Map<bigint, Mapping>();

  /** One region of at least `bytes` bytes, pages untouched. Throws SystemError ENOMEM. */
  allocate(bytes: number): MemoryRegion[] {
    const size = Math.ceil(bytes / MEMORY_REGION_UNIT) * MEMORY_REGION_UNIT;
    // mmap aligns to 4 KiB: one unit more leaves room for an aligned start.
    const mapping = mapAnonymous(size + MEMORY_REGION_UNIT);
    const unit = BigInt(MEMORY_REGION_UNIT);
    const address = ((mapping.address + unit - 1n) / unit) * unit;
    const start = Number(address - mapping.address);
    this.#mappings.set(address, mapping);
    return [
      {
        address,
        size,
        get bytes() {
          return mapping.bytes.subarray(start, start + size);
        },
      },
    ];
  }

  /** The enclave has its own copy: give the pages back to the system, where they are ours. */
  discard(regions: readonly MemoryRegion[]): void {
    for (const { address, size } of regions) {
      if (this.#mappings.has(address)) adviseMemory(address, size, MADV_DONTNEED);
    }
  }

  free(regions: readonly MemoryRegion[]): void {
    for (const { address } of regions) {
      this.#mappings.get(address)?.unmap();
      this.#mappings.delete(address);
    }
  }

  close(): void {
    for (const mapping of this.#mappings.values()) mapping.unmap();
    this.#mappings.clear();
  }
}

/**
 * Regions one after the other, from `start` on, as the hypervisor sees them. A read inside one region is a view, across
 * regions a copy; once memory is freed, reads are short.
 */
export function regionsReader(regions: readonly MemoryRegion[], start: number): ByteReader {
  const size = Math.max(0, regions.reduce((sum, region) => sum + region.size, 0) - start);
  return {
    size,
    read(offset, length) {
      const pieces: Uint8Array[] = [];
      let position = start + offset;
      let missing = length;
      for (const region of regions) {
        if (position < region.size && missing > 0) {
          const piece = region.bytes.subarray(position, position + missing);
          pieces.push(piece);
          missing -= Math.min(missing, region.size - position);
          position = region.size;
        }
        position -= region.size;
      }
      const [first] = pieces;
      return pieces.length === 1 && first !== undefined ? first : Buffer.concat(pieces);
    },
  };
}
