/** What a test may do to an enclave's surroundings. */
import { PORT_CONTROL, PORT_EGRESS } from "../../format/abi.ts";
import type { ParentVsock, VsockStream } from "../../launcher/device.ts";

/** Ports on which an enclave may find nobody: nitro-cli has neither. */
const OPTIONAL_PORTS: readonly number[] = [PORT_CONTROL, PORT_EGRESS];

export class Faults {
  readonly #clock: () => number;
  readonly #streams = new Set<VsockStream>();
  #isParentGone = false;
  #stall: PromiseWithResolvers<void> | undefined;
  #skewMs = 0;

  /** `clock`: the parent's and the hypervisor's, Unix milliseconds. */
  constructor(clock: () => number) {
    this.#clock = clock;
  }

  /** The clock with its skew. */
  readonly now = (): number => this.#clock() + this.#skewMs;

  /** What the emulated NSM awaits before each answer. */
  readonly pause = async (): Promise<void> => await this.#stall?.promise;

  /** Whether a connection of the enclave is served; those that are end with the parent. */
  readonly admit = (port: number, stream: VsockStream): boolean => {
    if (!OPTIONAL_PORTS.includes(port)) return true;
    if (this.#isParentGone) return false;
    this.#streams.add(stream);
    stream.once("close", () => this.#streams.delete(stream));
    return true;
  };

  /**
   * The parent's control channel and its proxy are gone: connections there are break, new ones are refused. The app is
   * reachable all the same.
   */
  dropParent(): void {
    this.#isParentGone = true;
    for (const stream of this.#streams) stream.destroy();
  }

  /** They are back. An enclave looks for the control channel by itself, within 30 s. */
  restoreParent(): void {
    this.#isParentGone = false;
  }

  /** The NSM answers nothing until `resumeNsm`. */
  stallNsm(): void {
    this.#stall ??= Promise.withResolvers();
  }

  resumeNsm(): void {
    this.#stall?.resolve();
    this.#stall = undefined;
  }

  /** From here on parent and hypervisor say a time that is later by so many milliseconds than the `clock` option's. */
  skewClock(ms: number): void {
    this.#skewMs = ms;
  }
}

/** A parent's vsock whose listeners the faults may cut off. */
export function faultyVsock(vsock: ParentVsock, faults: Faults): ParentVsock {
  return {
    connect: (cid, port, options) => vsock.connect(cid, port, options),
    listen: (port, onConnection) =>
      vsock.listen(port, (stream) => {
        if (faults.admit(port, stream)) onConnection(stream);
        else stream.destroy();
      }),
  };
}
