/**
 * Huge pages for enclave memory: which ones the kernel has, and which to take. The driver takes no other pages.
 * Source: Documentation/admin-guide/mm/hugetlbpage.rst; nitro-cli `enclave_proc/resource_manager.rs`.
 */
import { readdirSync, readFileSync } from "node:fs";
import { CloisterError } from "../format/errors.ts";
import { MEMORY_REGION_UNIT } from "./device.ts";

const POOLS = "/sys/kernel/mm/hugepages";
const nodePools = (node: number) => `/sys/devices/system/node/node${node}/hugepages`;

/** The pages of one size that are free. Sizes in bytes. */
export interface PagePool {
  readonly size: number;
  readonly free: number;
}

export interface PageCount {
  readonly size: number;
  readonly count: number;
}

/**
 * Pools whose pages the driver takes, largest pages first; those of one NUMA node where it is named. Empty where the
 * kernel has no huge pages.
 */
export function readPagePools(
  node?: number,
  folder = node === undefined ? POOLS : nodePools(node),
): PagePool[] {
  return names(folder)
    .flatMap((name) => {
      const [, kib] = /^hugepages-(\d+)kB$/.exec(name) ?? [];
      const size = Number(kib) * 1024;
      if (!(size % MEMORY_REGION_UNIT === 0)) return [];
      // Reserved pages are promised to mappings that have not touched them yet; a node does not count them.
      const free =
        readNumber(`${folder}/${name}/free_hugepages`) - readNumber(`${folder}/${name}/resv_hugepages`);
      return [{ size, free: Math.max(0, free) }];
    })
    .sort((a, b) => b.size - a.size);
}

function names(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    // ENOENT: a kernel without CONFIG_HUGETLBFS.
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

function readNumber(path: string): number {
  try {
    return Number(readFileSync(path, "utf8"));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return 0;
    throw error;
  }
}

/**
 * Which pages to take for `bytes`, largest pages first; undefined where there are too few. As nitro-cli chooses: large pages
 * while they are needed whole, then the smallest that cover the rest, then none that the others make superfluous.
 */
export function choosePages(bytes: number, pools: readonly PagePool[]): PageCount[] | undefined {
  const chosen = [...pools]
    .sort((a, b) => b.size - a.size)
    .map(({ size, free }) => ({ size, free, count: 0 }));
  let missing = bytes;
  const take = (pool: { size: number; free: number; count: number }, wanted: number) => {
    const count = Math.min(wanted, pool.free - pool.count);
    pool.count += count;
    missing -= count * pool.size;
  };
  for (const pool of chosen) take(pool, Math.floor(missing / pool.size));
  for (const pool of [...chosen].reverse()) if (missing > 0) take(pool, Math.ceil(missing / pool.size));
  if (missing > 0) return undefined;
  for (const pool of [...chosen].reverse()) {
    const surplus = Math.min(pool.count, Math.floor(-missing / pool.size));
    pool.count -= surplus;
    missing += surplus * pool.size;
  }
  return chosen.filter(({ count }) => count > 0).map(({ size, count }) => ({ size, count }));
}

/** E_HUGE_PAGES: what there is, what was wanted, and the command that reserves what is missing. */
export function tooFewPages(bytes: number, pools: readonly PagePool[], node?: number): CloisterError {
  const found = pools.map(({ size, free }) => `${free} of ${text(size)}`).join(", ") || "none";
  const where = node === undefined ? "" : ` on NUMA node ${node}`;
  const message = `free huge pages${where}: got ${found}, expected ${text(bytes)} in all`;
  return new CloisterError("E_HUGE_PAGES", message, { fix: reserveFix(bytes, pools, node) });
}

function reserveFix(bytes: number, pools: readonly PagePool[], node?: number): string {
  const smallest = pools.at(-1);
  if (smallest === undefined) return "Use a kernel with CONFIG_HUGETLBFS.";
  const free = pools.reduce((sum, pool) => sum + pool.size * pool.free, 0);
  const file = `${node === undefined ? POOLS : nodePools(node)}/hugepages-${smallest.size / 1024}kB/nr_hugepages`;
  const total = readNumber(file) + Math.ceil((bytes - free) / smallest.size);
  return (
    `Reserve pages: echo ${total} | sudo tee ${file}; on an EC2 parent raise memory_mib in ` +
    "/etc/nitro_enclaves/allocator.yaml and run `sudo systemctl restart nitro-enclaves-allocator`. " +
    "Where the number stays lower, memory is fragmented: reserve them when the machine boots."
  );
}

function text(bytes: number): string {
  const gib = bytes / 1024 ** 3;
  return Number.isInteger(gib) ? `${gib} GiB` : `${Math.round((bytes / 1024 ** 2) * 10) / 10} MiB`;
}
