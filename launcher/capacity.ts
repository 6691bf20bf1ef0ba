/** What the parent has for enclaves: CPUs and huge pages, against what an image needs. */
import { MEMORY_REGION_UNIT } from "./device.ts";
import { type Finding, ok, parseCpuList, problem, type Tree, warning } from "./finding.ts";
import { poolNode } from "./memory.ts";
import { choosePages, type PagePool, readPagePools, tooFewPages } from "./pages.ts";

/** What an enclave is to have. */
export interface Need {
  /** Bytes. */
  readonly memory: number;
  readonly cpus: number;
}

const MIB = 1024 ** 2;
const PARAMETERS = "/sys/module/nitro_enclaves/parameters/ne_cpus";
const NODES = "/sys/devices/system/node";
const POOLS = "/sys/kernel/mm/hugepages";
const CONFIG = "/etc/nitro_enclaves/allocator.yaml";
const APPLY = "sudo systemctl restart nitro-enclaves-allocator";

export function checkCapacity(tree: Tree, need: Need | undefined, usedCpus: number): Finding[] {
  const list = tree.text(PARAMETERS) ?? "";
  const node = poolNode(list, tree.path(NODES));
  const folder = node === undefined ? POOLS : `${NODES}/node${node}/hugepages`;
  const pools = readPagePools(node, tree.path(folder));
  return [
    ...checkCpus(tree, list, need?.cpus, usedCpus),
    checkNode(tree, list, node),
    checkPages(pools, need?.memory, node),
    checkFragments(tree, pools, need?.memory, node),
  ];
}

function checkCpus(tree: Tree, list: string, wanted: number | undefined, used: number): Finding[] {
  const pool = parseCpuList(list);
  const least = wanted ?? 1;
  const fix = `Set cpu_count to ${Math.max(least + used, 2)} in ${CONFIG}, then: ${APPLY}`;
  if (pool.length === 0) return [problem("CPU pool", "no CPU", `${least} or more`, fix)];
  const free = pool.length - used;
  const found = `${pool.length} CPUs (${list}), ${used} of them in use`;
  if (free < least) return [problem("CPU pool", found, `${least} free`, fix)];
  // Pool CPUs are offline and hide their siblings; with SMT on, the driver takes both threads of a core or none.
  const threads = tree.text("/sys/devices/system/cpu/smt/control") === "on" ? 2 : 1;
  if (wanted === undefined || wanted % threads === 0) return [ok("CPU pool", found)];
  return [
    ok("CPU pool", found),
    problem(
      "siblings",
      `${wanted} CPUs wanted`,
      `whole cores of ${threads}`,
      `Give it --cpus ${wanted + 1}.`,
    ),
  ];
}

function checkNode(tree: Tree, pool: string, node: number | undefined): Finding {
  const nodes = tree.list(NODES).filter((name) => /^node\d+$/.test(name)).length;
  if (nodes < 2) return ok("NUMA", "one node");
  if (node !== undefined) return ok("NUMA", `CPU pool and memory on node ${node} of ${nodes}`);
  const found = pool === "" ? `${nodes} nodes, no pool on either` : `${nodes} nodes, the pool on none`;
  return warning(
    "NUMA",
    found,
    "the CPU pool on one node",
    `Name CPUs of one node as cpu_pool in ${CONFIG}, then: ${APPLY}`,
  );
}

function checkPages(
  pools: readonly PagePool[],
  memory: number | undefined,
  node: number | undefined,
): Finding {
  const found = pools.map(({ size, free }) => `${free} of ${sizeText(size)}`).join(", ") || "none";
  const wanted = memory ?? MEMORY_REGION_UNIT;
  if (choosePages(wanted, pools) !== undefined) return ok("huge pages", `free: ${found}`);
  const { fix = "" } = tooFewPages(wanted, pools, node);
  return problem("huge pages", `free: ${found}`, `${sizeText(wanted)} in all`, fix);
}

/** Blocks of the page allocator: 4 KiB of order 0; a huge page of 2 MiB needs order 9. */
const HUGE_ORDER = 9;
const BASE_PAGE = 4096;

/**
 * Whether the kernel could make the pages that are missing: it needs free memory in one piece for each. Source: proc(5),
 * /proc/buddyinfo: a row a zone, free blocks by order.
 */
function checkFragments(
  tree: Tree,
  pools: readonly PagePool[],
  memory: number | undefined,
  node: number | undefined,
): Finding {
  const rows = (tree.text("/proc/buddyinfo") ?? "").split("\n").map((line) => line.trim().split(/[\s,]+/));
  const blocks = rows
    .filter(
      ([, number, , name]) => name?.startsWith("DMA") !== true && (node ?? Number(number)) === Number(number),
    )
    .map((row) => row.slice(4).map(Number));
  const bytes = (from: number) =>
    blocks.flat().length === 0
      ? 0
      : blocks.reduce(
          (sum, row) =>
            sum +
            row.reduce(
              (inner, count, order) => inner + (order < from ? 0 : count * BASE_PAGE * 2 ** order),
              0,
            ),
          0,
        );
  const whole = Math.floor(bytes(HUGE_ORDER) / (2 * MIB));
  const free = pools.reduce((sum, pool) => sum + pool.size * pool.free, 0);
  const missing = Math.ceil(Math.max(0, (memory ?? 0) - free) / (2 * MIB));
  const found = `free memory in one piece for ${whole} more pages of 2 MiB, of ${Math.floor(bytes(0) / (2 * MIB))}`;
  if (missing <= whole) return ok("fragmentation", found);
  const fix = `Reserve them when the machine boots: add hugepagesz=2M hugepages=${missing} to the kernel's command line; until then: echo 1 | sudo tee /proc/sys/vm/compact_memory`;
  return warning("fragmentation", found, `for ${missing}`, fix);
}

export function sizeText(bytes: number): string {
  const gib = bytes / 1024 ** 3;
  return Number.isInteger(gib) ? `${gib} GiB` : `${Math.ceil(bytes / MIB)} MiB`;
}
