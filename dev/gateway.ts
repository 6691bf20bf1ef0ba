/** The published ports of the loop: they stay while apps and machines come and go, and what comes meanwhile waits. */
import { setTimeout as sleep } from "node:timers/promises";
import { CloisterError } from "../format/errors.ts";
import type { VsockStream } from "../launcher/device.ts";

/** How long a request may wait for an app that is being replaced. */
const WAIT_LIMIT_MS = 60_000;
/** Between a generation that let go of its port and the next one that opens it lie some milliseconds. */
const RETRY_MS = 10;
/** A port that nothing listens on, while the app serves, is told soon. */
const REFUSAL_LIMIT_MS = 250;
/** TCP has no others. */
const TCP_MAX = 65_535;

export interface GatewayPort {
  readonly address?: string;
  readonly port: number;
  readonly vsockPort: number;
  /** The port was asked for: another one will not do. */
  readonly strict: boolean;
}

export interface OpenPort {
  readonly address: string;
  readonly port: number;
  readonly vsockPort: number;
  /** The port that was wanted, where another program has it. */
  readonly taken?: number;
}

interface Publisher {
  readonly address: string;
  readonly port: number;
  start(connect: (port: number) => Promise<VsockStream>): void;
  close(): void;
}

/** How to listen: by launcher/publish.ts, or where there is no Linux by bare/publish.ts. */
export type Listen = (wanted: {
  readonly address?: string;
  readonly port: number;
  readonly vsockPort: number;
}) => Promise<Publisher>;

/** The same number on the loopback for each port of the configuration that has one. */
export function defaultPorts(ports: readonly number[]): GatewayPort[] {
  return ports.map((vsockPort) => ({ port: vsockPort > TCP_MAX ? 0 : vsockPort, vsockPort, strict: false }));
}

export interface GatewayOptions {
  /** Whatever tells it from another one. */
  readonly key: string;
  readonly listen: Listen;
  /** Rejects ECONNRESET where nothing listens. */
  readonly connect: (port: number) => Promise<VsockStream>;
}

export class Gateway implements Disposable {
  readonly key: string;
  readonly ports: readonly OpenPort[];
  readonly #publishers: readonly Publisher[];
  #state: "waiting" | "serving" | "down" = "waiting";
  #changed = Promise.withResolvers<void>();

  private constructor(
    key: string,
    opened: readonly { readonly publisher: Publisher; readonly port: OpenPort }[],
  ) {
    this.key = key;
    this.#publishers = opened.map(({ publisher }) => publisher);
    this.ports = opened.map(({ port }) => port);
  }

  /** Rejects with E_PORT_TAKEN, E_PORT_UNUSABLE. Nothing listens then. */
  static async open(
    wanted: readonly GatewayPort[],
    { key, listen, connect }: GatewayOptions,
  ): Promise<Gateway> {
    const opened: { publisher: Publisher; port: OpenPort }[] = [];
    try {
      for (const port of wanted) opened.push(await openPort(port, listen));
    } catch (error) {
      for (const { publisher } of opened) publisher.close();
      throw error;
    }
    const gateway = new Gateway(key, opened);
    for (const { publisher } of opened) publisher.start((port) => gateway.#connect(port, connect));
    return gateway;
  }

  /** waiting: connections wait; serving: they go through; down: they are refused, for no app runs. */
  set state(state: "waiting" | "serving" | "down") {
    this.#state = state;
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  [Symbol.dispose](): void {
    this.state = "down";
    for (const publisher of this.#publishers) publisher.close();
  }

  async #connect(port: number, connect: (port: number) => Promise<VsockStream>): Promise<VsockStream> {
    const limit = AbortSignal.timeout(WAIT_LIMIT_MS);
    const begin = performance.now();
    for (;;) {
      limit.throwIfAborted();
      // In the enclave it would wait for the next generation.
      if (this.#state === "down") throw refused(port);
      try {
        return await connect(port);
      } catch (error) {
        const isLate = this.#state === "serving" && performance.now() - begin > REFUSAL_LIMIT_MS;
        if ((error as NodeJS.ErrnoException).code !== "ECONNRESET" || isLate) throw error;
      }
      await Promise.race([this.#changed.promise, sleep(RETRY_MS, undefined, { ref: false })]);
    }
  }
}

function refused(port: number): Error {
  return Object.assign(new Error(`vsock port ${port}: no app runs`), { code: "ECONNRESET" });
}

async function openPort(
  wanted: GatewayPort,
  listen: Listen,
): Promise<{ publisher: Publisher; port: OpenPort }> {
  const { vsockPort, strict } = wanted;
  try {
    const publisher = await listen(wanted);
    return { publisher, port: { address: publisher.address, port: publisher.port, vsockPort } };
  } catch (error) {
    // Below 1024 a port may not be this user's.
    const isOthers = error instanceof CloisterError && error.code.startsWith("E_PORT_");
    if (!isOthers || strict) throw error;
    const publisher = await listen({ ...wanted, port: 0 });
    const taken = wanted.port;
    return { publisher, port: { address: publisher.address, port: publisher.port, vsockPort, taken } };
  }
}
