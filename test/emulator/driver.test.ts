/** The driver's rules against linux drivers/virt/nitro_enclaves/ne_misc_dev.c: each error, and which one comes first. */
import { constants } from "node:os";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CpuPool } from "../../emulator/cpus.ts";
import { Driver, type PageCheck, type Slot } from "../../emulator/driver.ts";
import { NE_ERR, NitroError } from "../../launcher/device.ts";

const OWNER = 100;
const STRANGER = 101;
const MIB = 1n << 20n;
const { ENOMEM, EIO, EFAULT } = constants.errno;

interface Setup {
  readonly cores?: number;
  readonly threadsPerCore?: number;
  readonly pool?: readonly number[];
  readonly maxMemoryRegions?: number;
  readonly checkPages?: PageCheck;
}

function makeDriver({ cores = 4, threadsPerCore = 2, pool = [1, 2], ...rest }: Setup = {}): Driver {
  const cpus = new CpuPool({ cores, threadsPerCore, pool });
  return new Driver({ cpus, maxMemoryRegions: 4, checkPages: () => 1, ...rest });
}

function makeSlot(setup?: Setup): Slot {
  return makeDriver(setup).createSlot(OWNER);
}

function region(address: bigint, size: bigint, flags = 0n) {
  return { address, size, flags };
}

const GOOD_REGION = region(2n * MIB, 64n * MIB);

/** Ready to start. */
function fullSlot(setup?: Setup): Slot {
  const slot = makeSlot(setup);
  slot.setMemoryRegion(GOOD_REGION, OWNER);
  slot.addVcpu(0, OWNER);
  slot.addVcpu(0, OWNER);
  return slot;
}

function runningSlot(): Slot {
  const slot = fullSlot();
  slot.checkStart({ flags: 0n, cid: 0n });
  slot.started();
  return slot;
}

function errnoOf(action: () => unknown): number | undefined {
  try {
    action();
    return undefined;
  } catch (error) {
    expect(error).toBeInstanceOf(NitroError);
    return (error as NitroError).errno;
  }
}

function failingPages(errno: number): Setup {
  return {
    checkPages: () => {
      throw new NitroError("NE_SET_USER_MEMORY_REGION", errno, "pages");
    },
  };
}

/** Rows of a table: what is called on which slot, and the errno; each row is wrong in the later checks too. */
type Row = readonly [
  name: string,
  errno: number | undefined,
  slot: () => Slot,
  call: (slot: Slot) => unknown,
];

const withOneRegion = (setup?: Setup) => () => {
  const slot = makeSlot(setup);
  slot.setMemoryRegion(GOOD_REGION, OWNER);
  return slot;
};

const rows: readonly Row[] = [
  ["load info", undefined, makeSlot, (slot) => slot.imageLoadInfo(1n)],
  ["load info, state before flags", NE_ERR.NOT_IN_INIT_STATE, runningSlot, (slot) => slot.imageLoadInfo(0n)],
  ["load info, no flag", NE_ERR.INVALID_FLAG_VALUE, makeSlot, (slot) => slot.imageLoadInfo(0n)],
  ["load info, next flag", NE_ERR.INVALID_FLAG_VALUE, makeSlot, (slot) => slot.imageLoadInfo(2n)],

  ["region", undefined, makeSlot, (slot) => slot.setMemoryRegion(GOOD_REGION, OWNER)],
  [
    "region, flags before state",
    NE_ERR.INVALID_FLAG_VALUE,
    runningSlot,
    (slot) => slot.setMemoryRegion(region(1n, 1n, 1n), STRANGER),
  ],
  [
    "region, state before owner",
    NE_ERR.NOT_IN_INIT_STATE,
    runningSlot,
    (slot) => slot.setMemoryRegion(region(1n, 1n), STRANGER),
  ],
  ["region, owner before size", EIO, makeSlot, (slot) => slot.setMemoryRegion(region(1n, 1n), STRANGER)],
  [
    "region, size before address",
    NE_ERR.INVALID_MEM_REGION_SIZE,
    makeSlot,
    (slot) => slot.setMemoryRegion(region(MIB, MIB), OWNER),
  ],
  [
    "region, alignment before range",
    NE_ERR.UNALIGNED_MEM_REGION_ADDR,
    makeSlot,
    (slot) => slot.setMemoryRegion(region((1n << 63n) + MIB, 2n * MIB), OWNER),
  ],
  [
    "region, range",
    NE_ERR.INVALID_MEM_REGION_ADDR,
    makeSlot,
    (slot) => slot.setMemoryRegion(region((1n << 47n) - 2n * MIB, 4n * MIB), OWNER),
  ],
  [
    "region, overlap from below before pages",
    NE_ERR.MEM_REGION_ALREADY_USED,
    withOneRegion(),
    (slot) => slot.setMemoryRegion(region(0n, 4n * MIB), OWNER),
  ],
  [
    "region, overlap inside",
    NE_ERR.MEM_REGION_ALREADY_USED,
    withOneRegion(),
    (slot) => slot.setMemoryRegion(region(4n * MIB, 2n * MIB), OWNER),
  ],
  [
    "region, next to another",
    undefined,
    withOneRegion(),
    (slot) => slot.setMemoryRegion(region(66n * MIB, 2n * MIB), OWNER),
  ],
  [
    "region, below another",
    undefined,
    withOneRegion(),
    (slot) => slot.setMemoryRegion(region(0n, 2n * MIB), OWNER),
  ],
  ["region of nothing", ENOMEM, makeSlot, (slot) => slot.setMemoryRegion(region(2n * MIB, 0n), OWNER)],
  ...[EFAULT, NE_ERR.MEM_NOT_HUGE_PAGE, NE_ERR.INVALID_PAGE_SIZE, NE_ERR.MEM_DIFFERENT_NUMA_NODE].map(
    (errno): Row => [
      `region, pages ${errno} before count`,
      errno,
      () => makeSlot({ ...failingPages(errno), maxMemoryRegions: 0 }),
      (slot) => slot.setMemoryRegion(GOOD_REGION, OWNER),
    ],
  ),
  [
    "region, in too many pieces",
    NE_ERR.MEM_MAX_REGIONS,
    () => makeSlot({ checkPages: () => 5 }),
    (slot) => slot.setMemoryRegion(GOOD_REGION, OWNER),
  ],
  [
    "region, one too many",
    NE_ERR.MEM_MAX_REGIONS,
    withOneRegion({ maxMemoryRegions: 1 }),
    (slot) => slot.setMemoryRegion(region(66n * MIB, 2n * MIB), OWNER),
  ],

  ["vcpu", undefined, makeSlot, (slot) => slot.addVcpu(0, OWNER)],
  ["vcpu, state before id", NE_ERR.NOT_IN_INIT_STATE, runningSlot, (slot) => slot.addVcpu(8, STRANGER)],
  ["vcpu, beyond the parent", NE_ERR.INVALID_VCPU, makeSlot, (slot) => slot.addVcpu(8, STRANGER)],
  [
    "vcpu, twice",
    NE_ERR.VCPU_ALREADY_USED,
    () => {
      const slot = makeSlot();
      slot.addVcpu(1, OWNER);
      return slot;
    },
    (slot) => slot.addVcpu(1, STRANGER),
  ],
  ["vcpu, not in the pool", NE_ERR.VCPU_NOT_IN_CPU_POOL, makeSlot, (slot) => slot.addVcpu(3, STRANGER)],
  ["vcpu, pool before owner", EIO, makeSlot, (slot) => slot.addVcpu(1, STRANGER)],
  [
    "vcpu, pool empty",
    NE_ERR.NO_CPUS_AVAIL_IN_POOL,
    () => fullSlot({ pool: [1] }),
    (slot) => slot.addVcpu(0, STRANGER),
  ],

  ["start", undefined, fullSlot, (slot) => slot.checkStart({ flags: 1n, cid: 16n })],
  ["start, cid chosen", undefined, fullSlot, (slot) => slot.checkStart({ flags: 0n, cid: 0n })],
  [
    "start, flags before cid",
    NE_ERR.INVALID_FLAG_VALUE,
    runningSlot,
    (slot) => slot.checkStart({ flags: 2n, cid: 1n }),
  ],
  ...[1n, 2n, 3n, 0xffff_ffffn, 1n << 32n].map(
    (cid): Row => [
      `start, cid ${cid} before state`,
      NE_ERR.INVALID_ENCLAVE_CID,
      runningSlot,
      (slot) => slot.checkStart({ flags: 0n, cid }),
    ],
  ),
  [
    "start, state before memory",
    NE_ERR.NOT_IN_INIT_STATE,
    () => {
      const slot = makeSlot();
      slot.stopped();
      return slot;
    },
    (slot) => slot.checkStart({ flags: 0n, cid: 0n }),
  ],
  [
    "start, no memory",
    NE_ERR.NO_MEM_REGIONS_ADDED,
    makeSlot,
    (slot) => slot.checkStart({ flags: 0n, cid: 4n }),
  ],
  [
    "start, little memory before vcpus",
    NE_ERR.ENCLAVE_MEM_MIN_SIZE,
    () => {
      const slot = makeSlot();
      slot.setMemoryRegion(region(0n, 62n * MIB), OWNER);
      return slot;
    },
    (slot) => slot.checkStart({ flags: 0n, cid: 0n }),
  ],
  [
    "start, no vcpus",
    NE_ERR.NO_VCPUS_ADDED,
    withOneRegion(),
    (slot) => slot.checkStart({ flags: 0n, cid: 0n }),
  ],
  [
    "start, half a core",
    NE_ERR.FULL_CORES_NOT_USED,
    () => {
      const slot = withOneRegion()();
      slot.addVcpu(0, OWNER);
      return slot;
    },
    (slot) => slot.checkStart({ flags: 0n, cid: 0n }),
  ],
];

test.each(rows)("%s → %s", (_name, errno, slot, call) => {
  const target = slot();
  expect(errnoOf(() => call(target))).toBe(errno);
});

test("every error number of the driver is tried, but the one that its code cannot reach", () => {
  const tried = new Set(rows.map(([, errno]) => errno));
  const untried = Object.entries(NE_ERR).filter(([, errno]) => !tried.has(errno));
  // INVALID_CPU_CORE asks for a core beyond the parent's, which no CPU id below INVALID_VCPU has.
  expect(untried.map(([name]) => name)).toEqual(["VCPU_INVALID_CPU_CORE"]);
});

describe("CPU pool", () => {
  test("an enclave needs a free core to be created", () => {
    const driver = makeDriver({ pool: [1] });
    driver.createSlot(OWNER).addVcpu(0, OWNER);
    expect(errnoOf(() => driver.createSlot(OWNER))).toBe(NE_ERR.NO_CPUS_AVAIL_IN_POOL);
  });

  test("0 takes siblings first, then the lowest core", () => {
    const slot = makeSlot({ cores: 8, pool: [5, 3] });
    slot.addVcpu(5, OWNER);
    expect([0, 0, 0].map((id) => slot.addVcpu(id, OWNER))).toEqual([13, 3, 11]);
  });

  test("a core is its enclave's alone, and free again after release", () => {
    const driver = makeDriver({ pool: [1, 2] });
    const [first, second] = [driver.createSlot(OWNER), driver.createSlot(OWNER)];
    first.addVcpu(1, OWNER);
    expect(errnoOf(() => second.addVcpu(5, OWNER))).toBe(NE_ERR.VCPU_NOT_IN_CPU_POOL);
    first.release();
    first.release();
    expect(second.addVcpu(5, OWNER)).toBe(5);
  });

  test("a refused owner keeps the core, as in the driver, but not the CPU", () => {
    const slot = makeSlot({ pool: [1] });
    expect(errnoOf(() => slot.addVcpu(1, STRANGER))).toBe(EIO);
    expect(slot.cpuIds).toEqual([]);
    expect(slot.addVcpu(0, OWNER)).toBe(1);
  });

  test.each([[0], [4], [1.5]])("core %s cannot be in the pool", (core) => {
    expect(() => makeDriver({ pool: [core] })).toThrow(RangeError);
  });

  test("whatever is asked for, no CPU has two enclaves and whole cores come back", () => {
    const command = fc.record({ slot: fc.nat(2), id: fc.nat(20), release: fc.boolean() });
    fc.assert(
      fc.property(fc.array(command, { maxLength: 60 }), (commands) => {
        const driver = makeDriver({ cores: 8, pool: [1, 2, 3, 6, 7] });
        const slots = [driver.createSlot(1), driver.createSlot(2), driver.createSlot(3)];
        commands.forEach(({ slot: index, id, release }) => {
          const slot = slots[index] as Slot;
          errnoOf(() => slot.addVcpu(id, index + 1));
          if (release && slot.cpuIds.length > 0) {
            slot.release();
            slots[index] = driver.createSlot(index + 1);
          }
          const ids = slots.flatMap(({ cpuIds }) => cpuIds);
          expect(new Set(ids).size).toBe(ids.length);
          expect(ids.every((cpu) => [1, 2, 3, 6, 7].includes(cpu % 8))).toBe(true);
        });
        for (const slot of slots) slot.release();
        const last = driver.createSlot(9);
        expect(Array.from({ length: 10 }, () => last.addVcpu(0, 9))).toHaveLength(10);
      }),
    );
  });
});

test("slots have ids that are never 0", () => {
  const driver = makeDriver();
  const ids = Array.from({ length: 50 }, () => driver.createSlot(OWNER).uid);
  expect(new Set(ids).size).toBe(50);
  expect(ids).not.toContain(0n);
});

test("a start that the hypervisor refused can be tried again", () => {
  const slot = fullSlot();
  slot.started();
  slot.startFailed();
  expect(errnoOf(() => slot.checkStart({ flags: 0n, cid: 0n }))).toBeUndefined();
});
