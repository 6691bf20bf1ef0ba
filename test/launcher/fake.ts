/** A NitroDevice without a machine behind it: what its enclave does is the test's script. */
import { type Duplex, duplexPair } from "node:stream";
import { HEARTBEAT_BYTE, PORT_CONTROL, PORT_HEARTBEAT } from "../../format/abi.ts";
import { type EnclaveMessage, encodeMessage } from "../../format/control.ts";
import type { MemoryRegion, NitroDevice, NitroVm, ParentVsock, VsockStream } from "../../launcher/device.ts";

/** The enclave's side. */
export interface Guest {
  readonly cid: number;
  /** Connect to a port of the parent, from this enclave or another CID. Undefined when nobody listens. */
  dial(port: number, cid?: number): VsockStream | undefined;
  /** What the parent's connections to a port meet. */
  readonly ports: Map<number, (stream: VsockStream) => void>;
  readonly vm: FakeVm;
  /** The enclave is gone. */
  end(): void;
  readonly ended: Promise<void>;
}

export type Script = (guest: Guest) => void | Promise<void>;

/** Everything that was done to the device, in order. */
export interface FakeDevice extends NitroDevice {
  readonly calls: string[];
  readonly vms: FakeVm[];
  readonly listeners: ReadonlyMap<number, unknown>;
  readonly regions: MemoryRegion[];
}

export interface FakeVm extends NitroVm {
  consoleTail: () => string;
  isOpen: boolean;
}

export interface FakeOptions {
  readonly script?: Script;
  /** Sizes of the regions that memory comes in, bytes; the last repeats. */
  readonly regionSizes?: readonly number[];
  /** Thrown by the named call. */
  readonly failures?: Readonly<Record<string, unknown>>;
}

export function fakeDevice({
  script = () => {},
  regionSizes = [1 << 30],
  failures = {},
}: FakeOptions = {}): FakeDevice {
  const calls: string[] = [];
  const vms: FakeVm[] = [];
  const regions: MemoryRegion[] = [];
  const guests = new Map<number, Guest>();
  const listeners = new Map<number, (stream: VsockStream) => void>();
  const call = (name: string, detail: unknown = "") => {
    calls.push(`${name} ${String(detail)}`.trim());
    if (failures[name] !== undefined) throw failures[name];
  };
  const vsock: ParentVsock = {
    listen(port, onConnection) {
      if (listeners.has(port)) throw Object.assign(new Error("listen"), { code: "EADDRINUSE" });
      listeners.set(port, onConnection);
      return { close: () => listeners.delete(port) };
    },
    async connect(cid, port) {
      const accept = guests.get(cid)?.ports.get(port);
      if (accept === undefined) throw Object.assign(new Error("connect"), { code: "ECONNRESET" });
      const [ours, theirs] = pair({ cid: 3, port: 1 }, { cid, port });
      accept(theirs);
      return ours;
    },
  };
  const close = () => {
    for (const vm of vms) vm.close();
  };
  return {
    calls,
    vms,
    listeners,
    regions,
    vsock,
    createVm() {
      call("createVm");
      const vm = makeVm(call, (cid) => {
        const guest = makeGuest(cid, vm, listeners);
        guests.set(cid, guest);
        void vm.hangup.then(() => guests.delete(cid));
        void script(guest);
      });
      vms.push(vm);
      return vm;
    },
    allocateMemory(bytes) {
      call("allocateMemory", bytes);
      for (let left = bytes, index = 0; left > 0; index++) {
        const size = Math.min(left, regionSizes[Math.min(index, regionSizes.length - 1)] ?? left);
        regions.push({ address: BigInt(regions.length) << 40n, size, bytes: Buffer.alloc(size) });
        left -= size;
      }
      return [...regions];
    },
    freeMemory: (freed) => call("freeMemory", freed.length),
    close,
    [Symbol.dispose]: close,
  };
}

function makeVm(call: (name: string, detail?: unknown) => void, onStart: (cid: number) => void): FakeVm {
  const { promise: hangup, resolve } = Promise.withResolvers<void>();
  let cpu = 0;
  const vm: FakeVm = {
    slotUid: 0x181d3dff86da785n,
    hangup,
    isOpen: true,
    consoleTail: () => "first line\nlast line\n",
    imageLoadOffset: () => 8 << 20,
    setMemoryRegion: ({ size }) => call("setMemoryRegion", size),
    addVcpu(id) {
      call("addVcpu", id);
      cpu += 1;
      return id || cpu;
    },
    async start({ flags, cid }) {
      call("start", `${flags} ${cid}`);
      onStart(cid || 16);
      return cid || 16;
    },
    close() {
      if (vm.isOpen) call("close");
      vm.isOpen = false;
      resolve();
    },
  };
  return vm;
}

function makeGuest(
  cid: number,
  vm: FakeVm,
  listeners: ReadonlyMap<number, (stream: VsockStream) => void>,
): Guest {
  const streams: VsockStream[] = [];
  void vm.hangup.then(() => {
    for (const stream of streams) stream.end();
  });
  let port = 1000;
  return {
    cid,
    vm,
    ports: new Map(),
    dial(parentPort, from = cid) {
      const accept = listeners.get(parentPort);
      if (accept === undefined) return undefined;
      const [ours, theirs] = pair({ cid: from, port: port++ }, { cid: 3, port: parentPort });
      ours.on("error", () => {});
      streams.push(ours);
      accept(theirs);
      return ours;
    },
    end: () => vm.close(),
    ended: vm.hangup,
  };
}

interface Address {
  readonly cid: number;
  readonly port: number;
}

/** Two ends of a connection; each sees the other's address. */
export function pair(first: Address, second: Address): [VsockStream, VsockStream] {
  const [a, b] = duplexPair();
  const end = (stream: typeof a, { cid, port }: Address): VsockStream =>
    Object.assign(stream, { remoteCid: cid, remotePort: port });
  breakWith(a, b);
  breakWith(b, a);
  return [end(a, second), end(b, first)];
}

/** As a socket: an end that goes away without having said and heard goodbye resets the other. */
function breakWith(one: Duplex, other: Duplex): void {
  one.once("close", () => {
    if (one.readableEnded && one.writableFinished) return;
    other.destroy(Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" }));
  });
}

/** Send the heartbeat; resolves with what came back. */
export async function beat(
  guest: Guest,
  byte = HEARTBEAT_BYTE,
  cid = guest.cid,
): Promise<number | undefined> {
  const stream = guest.dial(PORT_HEARTBEAT, cid);
  stream?.write(Uint8Array.of(byte));
  if (stream === undefined) return undefined;
  return new Promise((resolve) => {
    stream.once("data", (chunk: Buffer) => resolve(chunk[0]));
    stream.once("close", () => resolve(undefined));
  });
}

export interface Control {
  say(...messages: EnclaveMessage[]): void;
  readonly stream: VsockStream;
  /** Resolves when the parent has said this type. */
  hear(type: string): Promise<void>;
}

export function control(guest: Guest): Control {
  const stream = guest.dial(PORT_CONTROL);
  if (stream === undefined) throw new Error("nobody listens on the control port");
  let heard = "";
  const waiting = new Map<string, () => void>();
  stream.on("data", (chunk: Buffer) => {
    heard += String(chunk);
    for (const [type, resolve] of waiting) if (heard.includes(`"type":"${type}"`)) resolve();
  });
  return {
    stream,
    say: (...messages) => {
      for (const message of messages) stream.write(encodeMessage(message));
    },
    hear: (type) =>
      new Promise((resolve) => {
        if (heard.includes(`"type":"${type}"`)) resolve();
        else waiting.set(type, resolve);
      }),
  };
}
