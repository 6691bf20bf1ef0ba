/**
 * The CPU pool: whole cores that the parent gave away, and which enclave has which. The driver keeps it as one CPU mask a core
 * (`avail_threads_per_core`); CPU n is a thread of core n mod cores, as the hypervisor of EC2 numbers siblings.
 */
import { NE_ERR, type NitroError } from "../launcher/device.ts";

export interface CpuPoolOptions {
  /** Cores of the parent. */
  readonly cores: number;
  /** 2 on x86_64 instances with hyper-threading, 1 on Graviton. */
  readonly threadsPerCore: number;
  /** Cores in the pool; core 0 stays with the parent. */
  readonly pool: readonly number[];
}

type Refuse = (errno: number, message: string) => NitroError;

export class CpuPool {
  readonly #options: CpuPoolOptions;
  readonly #free: Set<number>;

  /** Throws RangeError for what the driver refuses when the pool is written (ne_setup_cpu_pool). */
  constructor(options: CpuPoolOptions) {
    for (const core of options.pool) {
      if (!Number.isInteger(core) || core < 1 || core >= options.cores) {
        throw new RangeError(`core ${core} cannot be in the CPU pool: expected 1 to ${options.cores - 1}`);
      }
    }
    this.#options = options;
    this.#free = new Set(options.pool);
  }

  hasFreeCore(): boolean {
    return this.#free.size > 0;
  }

  forEnclave(): EnclaveCpus {
    return new EnclaveCpus(this.#options, this.#free);
  }
}

/** The cores and CPUs of one enclave. A core is taken whole with its first CPU, and freed with the enclave. */
export class EnclaveCpus {
  readonly ids: number[] = [];
  readonly #options: CpuPoolOptions;
  readonly #free: Set<number>;
  readonly #taken = new Set<number>();

  constructor(options: CpuPoolOptions, free: Set<number>) {
    this.#options = options;
    this.#free = free;
  }

  /** The CPU that an NE_ADD_VCPU with this id gets; its core is the enclave's from here on. */
  choose(id: number, refuse: Refuse): number {
    const { cores, threadsPerCore } = this.#options;
    if (id >= cores * threadsPerCore) {
      throw refuse(NE_ERR.INVALID_VCPU, `CPU ${id} does not exist: the parent has ${cores * threadsPerCore}`);
    }
    return id === 0 ? this.#chooseAny(refuse) : this.#chooseGiven(id, refuse);
  }

  #chooseAny(refuse: Refuse): number {
    const [sibling] = this.missingSiblings();
    if (sibling !== undefined) return sibling;
    const [core] = [...this.#free].sort((a, b) => a - b);
    if (core === undefined) throw refuse(NE_ERR.NO_CPUS_AVAIL_IN_POOL, "no CPU is left in the pool");
    this.#take(core);
    return core;
  }

  #chooseGiven(id: number, refuse: Refuse): number {
    if (this.ids.includes(id)) throw refuse(NE_ERR.VCPU_ALREADY_USED, `CPU ${id} was added before`);
    const core = id % this.#options.cores;
    if (this.#taken.has(core)) return id;
    if (!this.#free.has(core)) throw refuse(NE_ERR.VCPU_NOT_IN_CPU_POOL, `CPU ${id} is not free in the pool`);
    this.#take(core);
    return id;
  }

  add(id: number): void {
    this.ids.push(id);
  }

  /** Threads of the enclave's cores that were not added, in the driver's order. */
  missingSiblings(): number[] {
    const { cores, threadsPerCore } = this.#options;
    return [...this.#taken]
      .sort((a, b) => a - b)
      .flatMap((core) => Array.from({ length: threadsPerCore }, (_, thread) => core + thread * cores))
      .filter((id) => !this.ids.includes(id));
  }

  release(): void {
    for (const core of this.#taken) this.#free.add(core);
    this.#taken.clear();
  }

  #take(core: number): void {
    this.#free.delete(core);
    this.#taken.add(core);
  }
}
