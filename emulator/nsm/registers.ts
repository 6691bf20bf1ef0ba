/**
 * The registers of one Nitro Secure Module and their rules. Source: aws-nitro-enclaves-nsm-api `docs/attestation_process.md`
 * §2.2 and `nsm-test/src/bin/nsm-check.rs`; where both are silent, QEMU hw/virtio/virtio-nsm.c.
 */
import { createHash } from "node:crypto";
import { PCR_SIZE } from "../../format/attestation.ts";
import { NSM_PCR_COUNT, type NsmErrorName } from "../../format/nsm.ts";

/** Registers that the hypervisor locks before the enclave runs: 0 to 15. */
const LOCKED_AT_BOOT = 16;

/** What the module answers with an error. */
export class NsmRefusal extends Error {
  readonly reason: NsmErrorName;

  constructor(reason: NsmErrorName) {
    super(reason);
    this.reason = reason;
  }
}

interface Register {
  value: Uint8Array;
  locked: boolean;
}

export class Registers {
  readonly #registers: Register[];

  /** `values`: 48 bytes each, of the registers that are not zero at boot. */
  constructor(values: ReadonlyMap<number, Uint8Array>) {
    this.#registers = Array.from({ length: NSM_PCR_COUNT }, (_, index) => ({
      value: values.get(index) ?? new Uint8Array(PCR_SIZE),
      locked: index < LOCKED_AT_BOOT,
    }));
  }

  /** By index, ascending. */
  get locked(): ReadonlyMap<number, Uint8Array> {
    return new Map(
      this.#registers.flatMap(({ value, locked }, index) => (locked ? [[index, value] as const] : [])),
    );
  }

  /** Throws NsmRefusal InvalidIndex, as all of these do. */
  describe(index: number): Readonly<Register> {
    return this.#at(index);
  }

  /** Returns the new value: SHA384(old ‖ data). Throws NsmRefusal ReadOnlyIndex. */
  extend(index: number, data: Uint8Array): Uint8Array {
    const register = this.#writable(index);
    register.value = new Uint8Array(createHash("sha384").update(register.value).update(data).digest());
    return register.value;
  }

  /** Throws NsmRefusal ReadOnlyIndex. */
  lock(index: number): void {
    this.#writable(index).locked = true;
  }

  /** Registers 0 to `range` - 1; those that are locked stay so. */
  lockBelow(range: number): void {
    if (range > NSM_PCR_COUNT) throw new NsmRefusal("InvalidIndex");
    for (const register of this.#registers.slice(0, range)) register.locked = true;
  }

  #at(index: number): Register {
    const register = this.#registers[index];
    if (register === undefined) throw new NsmRefusal("InvalidIndex");
    return register;
  }

  #writable(index: number): Register {
    const register = this.#at(index);
    if (register.locked) throw new NsmRefusal("ReadOnlyIndex");
    return register;
  }
}
