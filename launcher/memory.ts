/** Enclave memory of the ioctl device: huge pages of this process, on the NUMA node of the CPU pool. */
import { readdirSync, readFileSync } from "node:fs";
import { SystemError } from "../linux/ffi.ts";
import {
  adviseMemory,
  MADV_DONTDUMP,
  MADV_DONTFORK,
  type Mapping,
  mapAnonymous,
  preferNode,
} from "../linux/memory.ts";
import type { MemoryRegion } from "./device.ts";
import { choosePages, readPagePools, tooFewPages } from "./pages.ts";

/**
 * Largest region of several pages, bytes. The driver joins neighbouring pages only within one region, of which the
 * hypervisor takes a limited number, so regions are large; it zeroes and donates a region in one call that blocks the
 * event loop (0.3 s a GiB), so they are not larger.
 */
const REGION_MAX = 1024 ** 3;
/** Other processes take pages while we count them. */
const ATTEMPTS = 3;

const CPU_POOL = "/sys/module/nitro_enclaves/parameters/ne_cpus";
const NODES = "/sys/devices/system/node";

export class HugePageAllocator {
  readonly #mappings = new Map<bigint, Mapping>();

  /**
   * At least `bytes` bytes, largest pages first, which the driver wants in that order. Throws E_HUGE_PAGES, with the command
   * that reserves what is missing.
   */
  allocate(bytes: number): MemoryRegion[] {
    const node = poolNode();
    for (let attempt = 1; ; attempt++) {
      const pools = readPagePools(node);
      const pages = choosePages(bytes, pools);
      if (pages === undefined) throw tooFewPages(bytes, pools, node);
      const regions: MemoryRegion[] = [];
      try {
        for (const { size, count } of pages) this.#mapPages(regions, size, count, node);
        return regions;
      } catch (error) {
        this.free(regions);
        // ENOMEM: fewer than were counted, because someone took them or a cgroup has a limit on them.
        if (!(error instanceof SystemError) || error.code !== "ENOMEM") throw error;
        if (attempt === ATTEMPTS) throw tooFewPages(bytes, pools, node);
      }
    }
  }

  #mapPages(regions: MemoryRegion[], size: number, count: number, node: number | undefined): void {
    const most = Math.max(1, Math.floor(REGION_MAX / size));
    for (let left = count; left > 0; left -= most) {
      const mapping = mapAnonymous(Math.min(left, most) * size, { hugePages: size });
      this.#mappings.set(mapping.address, mapping);
      regions.push({
        address: mapping.address,
        size: mapping.size,
        get bytes() {
          return mapping.bytes;
        },
      });
      // Once donated it is no memory of ours: a core dump must not read it, nor a child's first write copy its pages.
      adviseMemory(mapping.address, mapping.size, MADV_DONTDUMP);
      adviseMemory(mapping.address, mapping.size, MADV_DONTFORK);
      if (node !== undefined) preferNode(mapping.address, mapping.size, node);
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

/** NUMA node of the CPU pool, which enclave memory must be on; undefined on a machine with one node. */
export function poolNode(pool = readPool(), nodes = NODES): number | undefined {
  const [cpu] = /^\d+/.exec(pool) ?? [];
  if (cpu === undefined) return undefined;
  const found = list(nodes).filter((name) => /^node\d+$/.test(name));
  if (found.length < 2) return undefined;
  // A CPU of the pool is offline, so cpulist does not have it, but its link stays (drivers/base/node.c).
  const home = found.find((name) => list(`${nodes}/${name}`).includes(`cpu${cpu}`));
  return home === undefined ? undefined : Number(home.slice("node".length));
}

function readPool(): string {
  try {
    return readFileSync(CPU_POOL, "utf8");
  } catch {
    // Without it the driver says what it thinks of the memory.
    return "";
  }
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    // A kernel without CONFIG_NUMA.
    return [];
  }
}
