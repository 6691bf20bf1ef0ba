/** An enclave as the words of `cloister run` order it; passes to a supervisor of its own as JSON. */
import { basename, resolve } from "node:path";
import { CloisterError } from "../format/errors.ts";
import { openRunDirectory } from "../launcher/directory.ts";
import { type LocalEgress, type NitroDevice, openNitroDevice, type Publish } from "../launcher/index.ts";
import type { TcpPlace } from "../launcher/listener.ts";
import { checkName, nameLike, Registry } from "../launcher/registry.ts";
import type { RestartPolicy } from "../launcher/restart.ts";
import { Supervisor, type SupervisorOptions } from "../launcher/supervisor.ts";
import { parseLocalEgress } from "./local.ts";
import { parseAddress, parseInteger, parseMemory, parsePublish } from "./operand.ts";

export interface Order {
  /** Absolute path. */
  readonly eif: string;
  readonly emulated: boolean;
  readonly debug: boolean;
  readonly name?: string;
  readonly memoryMiB?: number;
  readonly cpus?: number;
  readonly cid?: number;
  readonly publish: readonly Publish[];
  /** Absolute path. */
  readonly vsockSocket?: string;
  readonly egress?: { readonly local: readonly LocalEgress[] };
  readonly restart?: RestartPolicy;
  readonly health?: TcpPlace;
}

/** The options of `cloister run` that say what to start. */
export interface OrderWords {
  readonly emulator?: boolean;
  readonly debug?: boolean;
  readonly name?: string;
  readonly memory?: string;
  readonly cpus?: string;
  readonly cid?: string;
  readonly publish?: readonly string[];
  readonly "vsock-socket"?: string;
  readonly "allow-local"?: readonly string[];
  readonly restart?: string;
  readonly "health-port"?: string;
}

/** Throws E_USAGE, E_ENCLAVE_NAME. */
export function parseOrder(path: string, directory: string, words: OrderWords): Order {
  const { name, memory, cpus, cid, restart, "health-port": health, "vsock-socket": vsockSocket } = words;
  if (name !== undefined) checkName(name);
  return {
    eif: resolve(directory, path),
    emulated: words.emulator === true,
    debug: words.debug === true,
    publish: (words.publish ?? []).map((text) => absolute(parsePublish(text), directory)),
    egress: { local: (words["allow-local"] ?? []).map(parseLocalEgress) },
    ...(vsockSocket !== undefined && { vsockSocket: resolve(directory, vsockSocket) }),
    ...(name !== undefined && { name }),
    ...(memory !== undefined && { memoryMiB: parseMemory("--memory", memory) }),
    ...(cpus !== undefined && { cpus: parseInteger("--cpus", cpus, 1, 512) }),
    ...(cid !== undefined && { cid: parseInteger("--cid", cid, 4, 0xffff_fffe) }),
    ...(restart !== undefined && { restart: parseRestart(restart) }),
    ...(health !== undefined && { health: parseAddress("--health-port", health) }),
  };
}

/** A supervisor of its own has another directory. */
function absolute(publish: Publish, directory: string): Publish {
  return "path" in publish ? { ...publish, path: resolve(directory, publish.path) } : publish;
}

/** JSON has no Infinity. */
const FOREVER = Number.MAX_SAFE_INTEGER;

function parseRestart(text: string): RestartPolicy {
  const [, max] = /^on-failure(?::(\d{1,6}))?$/.exec(text) ?? [];
  if (max !== undefined) return { max: Number(max) };
  if (text === "on-failure") return { max: FOREVER };
  throw new CloisterError("E_USAGE", `--restart: got "${text}", expected on-failure or on-failure:MAX`);
}

export interface Watchers extends Pick<SupervisorOptions, "onEvent" | "onConsole"> {
  /** Sees the QEMU command. */
  readonly onCommand?: (argv: readonly string[]) => void;
}

/** Supervise what was ordered, in this process. `keep`: the record outlives it. Rejects as openDevice and Supervisor.begin. */
export async function beginOrder(
  { emulated, ...order }: Order,
  registry: Registry,
  keep: boolean,
  { onCommand, ...watchers }: Watchers,
): Promise<Supervisor> {
  const device = await openDevice(emulated, onCommand);
  try {
    const supervisor = await Supervisor.begin(order.eif, {
      ...order,
      ...watchers,
      device,
      registry,
      emulated,
      keep,
      defaultName: nameLike(basename(order.eif, ".eif")),
    });
    void supervisor.ended.then(() => device.close());
    return supervisor;
  } catch (error) {
    device.close();
    throw error;
  }
}

async function openDevice(
  emulated: boolean,
  onCommand?: (argv: readonly string[]) => void,
): Promise<NitroDevice> {
  if (!emulated) return openNitroDevice();
  // On an EC2 parent it would only take memory.
  const { createEmulatedDevice } = await import("../emulator/index.ts");
  return createEmulatedDevice(onCommand === undefined ? {} : { onCommand });
}

/** This user's enclaves; what dead supervisors left is removed, and told on `stderr`. Throws E_RUN_DIRECTORY. */
export function openRegistry(io: {
  readonly env: NodeJS.ProcessEnv;
  readonly stderr: NodeJS.WritableStream;
}): Registry {
  return new Registry(openRunDirectory(io.env), ({ name, supervisor }) => {
    io.stderr.write(
      `cloister: ${name}: its supervisor ${supervisor.pid} died, and the enclave with it; removed\n`,
    );
  });
}
