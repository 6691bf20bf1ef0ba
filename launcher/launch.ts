/** Start an EIF as an enclave: nitro-cli's sequence (`enclave_proc/resource_manager.rs`), step by step. */
import { setImmediate as nextTurn } from "node:timers/promises";
import { PORT_CONTROL, PORT_HEARTBEAT } from "../format/abi.ts";
import { CloisterError } from "../format/errors.ts";
import { SystemError } from "../linux/ffi.ts";
import { type EgressCarrier, openEgress } from "./carrier.ts";
import {
  type MemoryRegion,
  NE_ENCLAVE_DEBUG_MODE,
  NE_ENCLAVE_PRODUCTION_MODE,
  type NitroDevice,
  type NitroVm,
} from "./device.ts";
import type { EgressOptions } from "./egress.ts";
import { Enclave } from "./enclave.ts";
import type { EnclaveEvent, LaunchStage } from "./event.ts";
import { awaitHeartbeat, heartbeatLimitMs } from "./heartbeat.ts";
import { enclaveId } from "./id.ts";
import { copyImage, type Image, openImage } from "./image.ts";
import { openParentPort } from "./port.ts";
import { type Publish, type Publisher, publishPort } from "./publish.ts";
import { explainRefusal } from "./refusal.ts";
import { chooseCpus, chooseMemory, lessThanAsked } from "./size.ts";
import { serveVsockSocket } from "./socket.ts";

export interface LaunchOptions {
  readonly device: NitroDevice;
  /** Default: the file's name without `.eif`. */
  readonly name?: string;
  /** Default: what the image's header asks for. */
  readonly memoryMiB?: number;
  /** How many, or which ones. Default: what the image's header asks for. */
  readonly cpus?: number | readonly number[];
  /** Default: the hypervisor chooses. */
  readonly cid?: number;
  /** The console can be read, PCRs are attested as zero. Default false. */
  readonly debug?: boolean;
  readonly publish?: readonly Publish[];
  /**
   * Default: what the image was built with is carried, and nothing that is on this machine, its link, or the cloud's own.
   * `local`: destinations of those that are carried all the same. false: another program carries it, or none.
   */
  readonly egress?: Omit<EgressOptions, "rules" | "onRefusal"> | false;
  /** Path of a Unix socket through which other processes reach the enclave's vsock ports (see socket.ts). */
  readonly vsockSocket?: string;
  /** Ends the launch, or the enclave once it runs. */
  readonly signal?: AbortSignal;
  readonly onEvent?: (event: EnclaveEvent) => void;
  /** What the enclave is told when it asks for the time, Unix milliseconds. Default: Date.now. For tests and simulations. */
  readonly now?: () => number;
  /** Default: nitro-cli's limit, 180 s for an image up to 6 GiB in up to 100 GiB. */
  readonly heartbeatLimitMs?: number;
}

/**
 * Start an enclave and wait for its heartbeat. Rejects with CloisterError: E_EIF_* (no image, or one that the hypervisor
 * refuses), E_MEMORY_*, E_PORT_*, E_NE_* (the driver refuses), E_HEARTBEAT_*, E_ENCLAVE_CRASHED; or with `signal`'s
 * reason. Nothing is left behind then.
 */
export async function launch(eif: string | Uint8Array, options: LaunchOptions): Promise<Enclave> {
  const begin = performance.now();
  const stack = new AsyncDisposableStack();
  try {
    options.signal?.throwIfAborted();
    await using image = await openImage(eif);
    return await start({ image, options, stack, elapsedMs: () => performance.now() - begin });
  } catch (error) {
    await stack.disposeAsync();
    throw explainRefusal(error);
  }
}

interface Launch {
  readonly image: Image;
  readonly options: LaunchOptions;
  /** Undoes what was done so far, last things first. */
  readonly stack: AsyncDisposableStack;
  readonly elapsedMs: () => number;
}

interface Slot {
  readonly vm: NitroVm;
  readonly cpuIds: readonly number[];
  /** Bytes. */
  readonly memory: number;
}

async function start(launch: Launch): Promise<Enclave> {
  const { image, options, stack, elapsedMs } = launch;
  const { device, signal, debug = false } = options;
  const publishers = await publish(launch);
  const running = Promise.withResolvers<Enclave>();
  if (options.vsockSocket !== undefined) {
    const connect = async (port: number) => (await running.promise).connect(port);
    const server = await serveVsockSocket(options.vsockSocket, connect);
    stack.defer(() => server.close());
  }
  const slot = await prepare(launch);
  const control = stack.use(openParentPort(device.vsock, PORT_CONTROL));
  await control.ready;
  const carrier = await carryEgress(launch);
  const cid = await boot(launch, slot);
  carrier?.serve(cid);
  const resources = stack.move();
  const enclave = new Enclave(
    {
      id: enclaveId(slot.vm.slotUid),
      name: options.name ?? image.name,
      cid,
      memoryMiB: slot.memory / 1024 ** 2,
      cpuIds: slot.cpuIds,
      debug,
    },
    {
      vm: slot.vm,
      vsock: device.vsock,
      control,
      saysReady: image.isOurs,
      publishers,
      egress: carrier,
      emit: options.onEvent ?? (() => {}),
      now: options.now ?? Date.now,
      elapsedMs,
      release: () => resources.disposeAsync(),
    },
  );
  running.resolve(enclave);
  const terminate = () => void enclave.terminate();
  signal?.addEventListener("abort", terminate, { once: true });
  void enclave.exited.then(() => signal?.removeEventListener("abort", terminate));
  return enclave;
}

/** First of all: a port that is taken is known before anything was started. */
async function publish({ image, options, stack }: Launch): Promise<Publisher[]> {
  const publishers: Publisher[] = [];
  for (const wanted of options.publish ?? []) {
    const publisher = await publishPort({
      proxyProtocol: image.proxyProtocol,
      onRefusal: (reason) => options.onEvent?.({ type: "publish", reason }),
      ...wanted,
    });
    stack.defer(() => publisher.close());
    publishers.push(publisher);
  }
  return publishers;
}

/** Before the enclave runs: its app may connect as soon as it is there. */
async function carryEgress({ image, options, stack }: Launch): Promise<EgressCarrier | undefined> {
  if (image.egress.length === 0 || options.egress === false) return undefined;
  const carrier = await openEgress(options.device.vsock, {
    ...options.egress,
    rules: image.egress,
    onRefusal: (reason) => options.onEvent?.({ type: "egress", reason }),
  });
  return stack.use(carrier);
}

/** Everything before START: the slot, its memory with the image in it, its CPUs. */
async function prepare(launch: Launch): Promise<Slot> {
  const { image, options, stack } = launch;
  const { device, signal } = options;
  const size = chooseMemory(image, options.memoryMiB);
  const regions: MemoryRegion[] = [];
  stack.defer(() => device.freeMemory(regions));
  const vm = device.createVm();
  stack.defer(async () => {
    vm.close();
    await vm.hangup;
  });
  regions.push(...allocate(device, size));
  reach(launch, "memory");
  await copyImage(image, regions, vm.imageLoadOffset(), signal);
  for (const region of regions) {
    vm.setMemoryRegion(region);
    // Each one may block for some 0.3 s.
    await nextTurn();
  }
  reach(launch, "image");
  const cpuIds = chooseCpus(image, options.cpus).map((id) => vm.addVcpu(id));
  reach(launch, "cpus");
  return { vm, cpuIds, memory: regions.reduce((sum, region) => sum + region.size, 0) };
}

function allocate(device: NitroDevice, size: number): MemoryRegion[] {
  try {
    return device.allocateMemory(size);
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    const message = `${size / 1024 ** 2} MiB of enclave memory: got ${error.code}, expected memory`;
    throw new CloisterError("E_MEMORY_UNAVAILABLE", message, { cause: error });
  }
}

/** START and the heartbeat. Returns the CID. */
async function boot(launch: Launch, { vm, memory }: Slot): Promise<number> {
  const { image, options, stack } = launch;
  const { device, signal } = options;
  // Before START: the enclave does not ask twice.
  const heartbeat = stack.use(openParentPort(device.vsock, PORT_HEARTBEAT));
  await heartbeat.ready;
  const flags = options.debug ? NE_ENCLAVE_DEBUG_MODE : NE_ENCLAVE_PRODUCTION_MODE;
  const cid = await vm.start({ flags, cid: options.cid ?? 0 });
  reach(launch, "started");
  const limitMs = options.heartbeatLimitMs ?? heartbeatLimitMs(image.size, memory);
  const crashFix = lessThanAsked(image, memory);
  await awaitHeartbeat({ port: heartbeat, vm, cid, limitMs, signal, crashFix });
  heartbeat[Symbol.dispose]();
  reach(launch, "heartbeat");
  return cid;
}

function reach({ options, elapsedMs }: Launch, stage: LaunchStage): void {
  options.onEvent?.({ type: "stage", stage, elapsedMs: elapsedMs() });
}
