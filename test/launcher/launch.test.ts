/** launch() and the enclave against a device whose enclave is a script: each step, each way to fail. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test, vi } from "vitest";
import { EIF_LOAD_OFFSET, PORT_CONTROL, PORT_HEARTBEAT } from "../../format/abi.ts";
import { encodeMessage } from "../../format/control.ts";
import { encodeEif } from "../../format/eif.ts";
import { CloisterError } from "../../format/errors.ts";
import { BUILD_TOOL, encodeMetadata } from "../../format/metadata.ts";
import {
  type Enclave,
  type EnclaveEvent,
  launch,
  NE_ERR,
  NitroError,
  type VsockStream,
} from "../../launcher/index.ts";
import { SystemError } from "../../linux/ffi.ts";
import { beat, control, type FakeOptions, fakeDevice, type Guest, type Script } from "./fake.ts";

const MIB = 1 << 20;
const folder = mkdtempSync(join(tmpdir(), "cloister-launch-"));
afterAll(() => rmSync(folder, { recursive: true }));

function makeEif(kernelBytes = 1000, buildTool = BUILD_TOOL): Uint8Array {
  return encodeEif({
    arch: "x86_64",
    defaultMemory: BigInt(100 * MIB),
    defaultCpus: 2n,
    kernel: Buffer.alloc(kernelBytes, 0x6b),
    cmdline: Buffer.from("console=ttyS0"),
    metadata: encodeMetadata({
      ImageName: "x",
      ImageVersion: "1",
      BuildMetadata: {
        BuildTime: "2026-11-21T00:00:00+00:00",
        BuildTool: buildTool,
        BuildToolVersion: "1",
        OperatingSystem: "Linux",
        KernelVersion: "6.12",
      },
      DockerInfo: null,
      CustomMetadata: null,
    }),
    ramdisks: [Buffer.alloc(500, 0x72)],
  });
}

const EIF = makeEif();
const READY = { type: "ready", uptimeMs: 900, ports: [8080] } as const;

/** An app that becomes ready and obeys a shutdown. */
const goodApp: Script = async (guest) => {
  await beat(guest);
  const channel = control(guest);
  channel.say({ type: "hello", protocol: 1, node: "26", name: "x" }, READY);
  await channel.hear("shutdown");
  channel.say({ type: "exit", status: 0, reason: "signal", lastWords: [] });
  await channel.hear("bye");
  guest.end();
};

interface Started {
  readonly enclave: Enclave;
  readonly device: ReturnType<typeof fakeDevice>;
  readonly events: EnclaveEvent[];
}

async function start(script: Script, options: FakeOptions = {}, more: object = {}): Promise<Started> {
  const device = fakeDevice({ script, ...options });
  const events: EnclaveEvent[] = [];
  const enclave = await launch(EIF, { device, onEvent: (event) => events.push(event), ...more });
  return { enclave, device, events };
}

/** A launch that fails must leave nothing. */
async function fail(options: FakeOptions, more: object = {}, eif: string | Uint8Array = EIF) {
  const device = fakeDevice(options);
  const error: unknown = await launch(eif, { device, ...more }).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(device.vms.filter(({ isOpen }) => isOpen)).toEqual([]);
  expect([...device.listeners.keys()]).toEqual([]);
  if (device.regions.length > 0) expect(device.calls.at(-1)).toBe(`freeMemory ${device.regions.length}`);
  return error as CloisterError;
}

test("the whole sequence, in nitro-cli's order, with what the image asks for", async () => {
  const { enclave, device, events } = await start(goodApp);
  await enclave.ready;
  expect(device.calls).toEqual([
    "createVm",
    `allocateMemory ${100 * MIB}`,
    `setMemoryRegion ${100 * MIB}`,
    "addVcpu 0",
    "addVcpu 0",
    "start 0 0",
  ]);
  const { id, name, cid, memoryMiB, cpuIds, debug } = enclave;
  expect({ id, name, cid, memoryMiB, cpuIds, debug }).toEqual({
    id: "i-0000000000000000-enc181d3dff86da785",
    name: "enclave",
    cid: 16,
    memoryMiB: 100,
    cpuIds: [1, 2],
    debug: false,
  });
  expect(await enclave.stop()).toEqual({ kind: "app", status: 0, reason: "signal", lastWords: [] });
  expect(device.calls.slice(-2)).toEqual(["close", "freeMemory 1"]);
  expect(events.map((event) => ("stage" in event ? event.stage : event.type))).toEqual([
    ...["memory", "image", "cpus", "started", "heartbeat"],
    ...["ready", "exit"],
  ]);
});

test("what the caller asks for instead", async () => {
  const options = { memoryMiB: 65, cpus: [5, 13], cid: 40, debug: true, name: "mine" };
  const { enclave, device } = await start(goodApp, {}, options);
  expect(device.calls).toContain(`allocateMemory ${66 * MIB}`);
  expect(device.calls.slice(-3)).toEqual(["addVcpu 5", "addVcpu 13", "start 1 40"]);
  expect(enclave).toMatchObject({ name: "mine", cid: 40, debug: true, memoryMiB: 66 });
  await enclave.terminate();
});

test.each(["file", "bytes"])(
  "the image (%s) lies 8 MiB into the regions, wherever they are cut",
  async (kind) => {
    const eif = makeEif(9 * MIB + 123);
    const path = join(folder, "some.eif");
    writeFileSync(path, eif);
    const device = fakeDevice({ script: goodApp, regionSizes: [6 * MIB, 4 * MIB, 2 * MIB, 6 * MIB] });
    const enclave = await launch(kind === "file" ? path : eif, { device });
    const memory = Buffer.concat(device.regions.map(({ bytes }) => bytes));
    expect(memory.subarray(EIF_LOAD_OFFSET, EIF_LOAD_OFFSET + eif.length).equals(eif)).toBe(true);
    expect(enclave.name).toBe(kind === "file" ? "some" : "enclave");
    await enclave.terminate();
  },
);

describe("images", () => {
  const bad = join(folder, "bad.eif");
  test.each([
    ["absent", join(folder, "absent.eif"), "E_EIF_READ"],
    ["a folder", folder, "E_EIF_READ"],
    ["no EIF", Buffer.from("#!/bin/sh\n"), "E_EIF_MAGIC"],
    ["cut short", EIF.subarray(0, 900), "E_EIF_TRUNCATED"],
  ])("%s", async (_name, eif, code) => {
    const error = await fail({}, {}, eif);
    expect(error).toMatchObject({ code });
  });

  test("a file that shrinks while it is copied", async () => {
    writeFileSync(bad, makeEif(9 * MIB));
    const failures = {
      get allocateMemory() {
        writeFileSync(bad, EIF);
        return undefined;
      },
    };
    expect(await fail({ failures }, {}, bad)).toMatchObject({ code: "E_EIF_TRUNCATED" });
  });
});

describe("memory", () => {
  test.each([[63], [1], [0]])("%i MiB are too few, and the numbers are said", async (memoryMiB) => {
    const error = await fail({}, { memoryMiB });
    expect(error).toMatchObject({ code: "E_MEMORY_TOO_SMALL" });
    expect(error.message).toBe(
      `enclave memory: got ${memoryMiB} MiB, expected 64 MiB or more: the image has 0 MiB, and the first 8 MiB are the hypervisor's`,
    );
  });

  test("an image that does not fit", async () => {
    const error = await fail({}, { memoryMiB: 64 }, makeEif(60 * MIB));
    expect(error.message).toContain("got 64 MiB, expected 70 MiB or more: the image has 60 MiB");
  });

  test("none left", async () => {
    const error = await fail({ failures: { allocateMemory: new SystemError("mmap", 12) } });
    expect(error).toMatchObject({ code: "E_MEMORY_UNAVAILABLE" });
    expect(error.message).toBe("100 MiB of enclave memory: got ENOMEM, expected memory");
  });
});

describe("the driver refuses", () => {
  const steps = ["createVm", "setMemoryRegion", "addVcpu", "start"];
  const rows = steps.flatMap((step) =>
    Object.entries(NE_ERR).map(([name, errno]) => [step, name, errno] as const),
  );

  test.each(rows)("%s: %s", async (step, name, errno) => {
    const error = await fail({ failures: { [step]: new NitroError(step, errno, `${step}: refused`) } });
    expect(error).toBeInstanceOf(CloisterError);
    expect(error).toMatchObject({ code: `E_NE_${name}`, message: `${step}: refused` });
  });

  test("with an errno that means nothing to it", async () => {
    const error = await fail({ failures: { start: new NitroError("NE_START_ENCLAVE", 95, "EOPNOTSUPP") } });
    expect(error).toMatchObject({ code: "E_NE_IOCTL" });
  });

  test("the image, for a reason", async () => {
    const cause = new CloisterError("E_EIF_CRC", "offset 544: wrong");
    const error = await fail({
      failures: { start: new NitroError("NE_START_ENCLAVE", 22, "no", { cause }) },
    });
    expect(error).toBe(cause);
  });
});

describe("heartbeat", () => {
  test("another byte", async () => {
    const error = await fail({ script: (guest) => void beat(guest, 0x41) });
    expect(error).toMatchObject({ code: "E_HEARTBEAT_BYTE", details: "first line\nlast line" });
    expect(error.message).toBe("heartbeat of CID 16: got 0x41, expected 0xb7");
  });

  test("none in time shows the console's last lines", async () => {
    const error = await fail({}, { heartbeatLimitMs: 20 });
    expect(error).toMatchObject({ code: "E_HEARTBEAT_TIMEOUT", details: "first line\nlast line" });
    expect(error.message).toBe("CID 16: got no heartbeat in 0.02 s, expected one");
  });

  test("a connection without a byte is none", async () => {
    const script: Script = (guest) => void guest.dial(PORT_HEARTBEAT)?.end();
    expect(await fail({ script }, { heartbeatLimitMs: 50 })).toMatchObject({ code: "E_HEARTBEAT_TIMEOUT" });
  });

  test("the enclave ends first", async () => {
    const error = await fail({ script: (guest) => guest.end() });
    expect(error).toMatchObject({ code: "E_ENCLAVE_CRASHED", details: "first line\nlast line" });
  });

  test("the enclave ends first, in less memory than its image asks for", async () => {
    const device = fakeDevice({ script: (guest) => guest.end() });
    const less = launch(EIF, { device, memoryMiB: 64 });
    await expect(less).rejects.toMatchObject({
      code: "E_ENCLAVE_CRASHED",
      fix: "It had 64 MiB, and the image asks for 100: leave --memory out, or give it that much.",
    });
    const more = await launch(EIF, { device, memoryMiB: 102 }).catch((error) => error);
    expect(more).toMatchObject({ code: "E_ENCLAVE_CRASHED" });
    expect(more).not.toHaveProperty("fix");
  });

  test("of another CID is left alone; a second of ours is turned away", async () => {
    const answers: Promise<number | undefined>[] = [];
    const { enclave } = await start(async (guest) => {
      answers.push(beat(guest, 0xb7, 99));
      answers.push(beat(guest));
      await answers[1];
      answers.push(beat(guest));
      control(guest).say(READY);
    });
    await enclave.ready;
    expect(await answers[1]).toBe(0xb7);
    expect(await answers[2]).toBeUndefined();
    // The port was released: whoever else waits is let go, unanswered.
    expect(await answers[0]).toBeUndefined();
    await enclave.terminate();
  });

  test("leaves no timer behind", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const { enclave } = await start((guest) => void beat(guest));
    expect(vi.getTimerCount()).toBe(0);
    vi.useRealTimers();
    await enclave.terminate();
  });

  test("echoes one byte of a flood", async () => {
    const echoed: Buffer[] = [];
    const { enclave } = await start((guest) => {
      const stream = guest.dial(PORT_HEARTBEAT);
      stream?.on("data", (chunk: Buffer) => echoed.push(chunk));
      stream?.write(Buffer.alloc(5000, 0xb7));
    });
    await enclave.terminate();
    expect(Buffer.concat(echoed).length).toBe(1);
  });
});

test("a signal aborts each stage of a launch", async () => {
  const reason = new Error("enough");
  expect(await fail({}, { signal: AbortSignal.abort(reason) })).toBe(reason);
  for (const stage of ["memory", "started"]) {
    const controller = new AbortController();
    const onEvent = (event: EnclaveEvent) => {
      if (event.type === "stage" && event.stage === stage) controller.abort(reason);
    };
    expect(await fail({}, { signal: controller.signal, onEvent })).toBe(reason);
  }
  const controller = new AbortController();
  const { enclave } = await start(goodApp, {}, { signal: controller.signal });
  controller.abort();
  expect(await enclave.exited).toEqual({ kind: "terminated" });
});

describe("control channel", () => {
  test("logs, phases and readiness become events, once each", async () => {
    const { enclave, events } = await start(async (guest) => {
      await beat(guest);
      const first = control(guest);
      const log = { type: "log", time: 5, source: "stdout", text: "hello" } as const;
      first.say({ type: "phase", phase: "init", uptimeMs: 1 }, READY, log, { type: "clock", sentMs: 7 });
      await first.hear("time");
      first.stream.once("close", () => {
        control(guest).say({ type: "phase", phase: "init", uptimeMs: 1 }, READY, { ...log, dropped: 3 });
      });
      first.stream.end();
    });
    await enclave.ready;
    await expect.poll(() => events.filter(({ type }) => type === "log").length).toBe(2);
    const told = events.filter(({ type }) => type !== "stage");
    expect(told).toEqual([
      { type: "phase", phase: "init", uptimeMs: 1, elapsedMs: expect.any(Number) },
      { type: "ready", ports: [8080], elapsedMs: expect.any(Number) },
      { type: "log", time: 5, source: "stdout", level: "info", text: "hello", dropped: 0 },
      { type: "log", time: 5, source: "stdout", level: "info", text: "hello", dropped: 3 },
    ]);
    await enclave.terminate();
  });

  test.each([
    ["no JSON", "garbage\n"],
    ["no object", "7\n"],
    ["a wrong field", '{"type":"exit","status":256,"reason":"exit","lastWords":[]}\n'],
    ["a line without end", "x".repeat(300_000)],
    ["deep nesting", `${"[".repeat(60_000)}\n`],
  ])("garbage (%s) ends the channel, not the enclave", async (_name, bytes) => {
    const { enclave, events } = await start(async (guest) => {
      await beat(guest);
      const { stream, say } = control(guest);
      say(READY);
      stream.write(bytes);
    });
    await enclave.ready;
    await expect.poll(() => events.at(-1)?.type).toBe("fault");
    expect(await enclave.stop()).toEqual({ kind: "terminated" });
  });

  test("types that a later release knows are skipped", async () => {
    const { enclave } = await start(async (guest) => {
      await beat(guest);
      const { stream, say } = control(guest);
      stream.write('{"type":"newer","x":1}\n');
      say(READY);
    });
    await enclave.ready;
    await enclave.terminate();
  });

  test("an enclave that asks and does not read fills no memory of its parent", async () => {
    const asked = 20_000;
    const { promise: asker, resolve } = Promise.withResolvers<VsockStream | undefined>();
    const { enclave } = await start(async (guest) => {
      await beat(guest);
      const stream = guest.dial(PORT_CONTROL);
      stream?.write(Buffer.concat(Array(asked).fill(encodeMessage({ type: "clock", sentMs: 1 }))));
      stream?.write(encodeMessage(READY));
      resolve(stream);
    });
    await enclave.ready;
    const stream = await asker;
    let answers = "";
    stream?.on("data", (chunk: Buffer) => {
      answers += chunk;
    });
    // One that reads is answered; answers come in order.
    const askAgain = () => {
      stream?.write(encodeMessage({ type: "clock", sentMs: 2 }));
      return answers;
    };
    await expect.poll(askAgain).toContain('"sentMs":2');
    expect(answers.match(/"sentMs":1\b/g)?.length).toBeLessThan(asked / 10);
    await enclave.terminate();
  });

  test("one at a time: a new one replaces the one before", async () => {
    const { enclave } = await start(async (guest) => {
      await beat(guest);
      guest.dial(PORT_CONTROL)?.once("close", () => second.say(READY));
      const second = control(guest);
    });
    await enclave.ready;
    await enclave.terminate();
  });
});

describe("the end", () => {
  const exit = { type: "exit", status: 3, reason: "exception", lastWords: ["Error: x"] } as const;

  test("of the app, which said why, before it was ready", async () => {
    let heardBye = false;
    const { enclave } = await start(async (guest) => {
      await beat(guest);
      const channel = control(guest);
      channel.say(exit);
      await channel.hear("bye");
      heardBye = true;
      guest.end();
    });
    await expect(enclave.ready).rejects.toMatchObject({ code: "E_APP_ENDED", details: "Error: x" });
    expect(heardBye).toBe(true);
    expect(await enclave.exited).toEqual({
      kind: "app",
      status: 3,
      reason: "exception",
      lastWords: ["Error: x"],
    });
  });

  test("is reported once: of a flood of reports the first one stands", async () => {
    let heard = "";
    const { enclave } = await start(async (guest) => {
      await beat(guest);
      const channel = control(guest);
      channel.stream.on("data", (chunk: Buffer) => {
        heard += chunk;
      });
      channel.say(exit, ...Array(100).fill({ ...exit, status: 4 }), { type: "clock", sentMs: 1 });
      await channel.hear("time");
      guest.end();
    });
    expect(await enclave.exited).toMatchObject({ status: 3 });
    expect(heard.match(/bye/g)).toEqual(["bye"]);
  });

  test("an enclave that does not restart after its report is terminated, and the report stands", async () => {
    const { promise: told, resolve } = Promise.withResolvers<void>();
    const { enclave } = await start(async (guest) => {
      await beat(guest);
      const channel = control(guest);
      vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
      channel.say(exit);
      await channel.hear("bye");
      resolve();
    });
    await told;
    vi.advanceTimersByTime(10_000);
    vi.useRealTimers();
    expect(await enclave.exited).toMatchObject({ kind: "app", status: 3 });
  });

  test("a report that comes with the end is not lost", async () => {
    const { enclave } = await start(async (guest) => {
      await beat(guest);
      control(guest).say(READY, exit);
      guest.end();
    });
    expect(await enclave.exited).toMatchObject({ kind: "app", status: 3 });
  });

  test.each(["before", "after"])("a crash %s it was ready", async (when) => {
    const { enclave, events } = await start(async (guest) => {
      await beat(guest);
      if (when === "after") control(guest).say(READY);
      setImmediate(() => setImmediate(() => guest.end()));
    });
    const report = { kind: "crash", console: "first line\nlast line\n" };
    expect(await enclave.exited).toEqual(report);
    expect(events.at(-1)).toEqual({ type: "exit", report });
    if (when === "after") await enclave.ready;
    else await expect(enclave.ready).rejects.toMatchObject({ code: "E_ENCLAVE_CRASHED" });
  });

  test("a crash stays one when it is terminated before its end is told", async () => {
    let guest: Guest | undefined;
    const { enclave } = await start(async (started) => {
      guest = started;
      await beat(started);
      control(started).say(READY);
    });
    await enclave.ready;
    guest?.end();
    await guest?.vm.hangup;
    expect(await enclave.terminate()).toMatchObject({ kind: "crash" });
  });

  test("an app that does not stop is terminated after the deadline", async () => {
    let guest: Guest | undefined;
    const { enclave } = await start(async (started) => {
      guest = started;
      await beat(started);
      control(started).say(READY);
    });
    await enclave.ready;
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const stopped = enclave.stop({ deadlineMs: 1000 });
    vi.advanceTimersByTime(5_999);
    expect(guest?.vm.isOpen).toBe(true);
    vi.advanceTimersByTime(1);
    vi.useRealTimers();
    expect(await stopped).toEqual({ kind: "terminated" });
    expect(guest?.vm.isOpen).toBe(false);
  });

  test("await using terminates", async () => {
    const { enclave, device } = await start(goodApp);
    {
      await using _enclave = enclave;
    }
    expect(device.vms[0]?.isOpen).toBe(false);
    expect(await enclave.exited).toEqual({ kind: "terminated" });
    expect(await enclave.terminate()).toEqual({ kind: "terminated" });
  });
});

test("an image of other tools is ready with its heartbeat", async () => {
  const device = fakeDevice({ script: (guest) => void beat(guest) });
  const enclave = await launch(makeEif(1000, "nitro-cli"), { device });
  await enclave.ready;
  expect(await enclave.stop()).toEqual({ kind: "terminated" });
});

test("several enclaves on one device share the parent's ports", async () => {
  const device = fakeDevice({ script: goodApp });
  const enclaves = await Promise.all([20, 21, 22, 23].map((cid) => launch(EIF, { device, cid })));
  await Promise.all(enclaves.map(({ ready }) => ready));
  expect([...device.listeners.keys()]).toEqual([PORT_CONTROL]);
  const reports = await Promise.all(enclaves.map((enclave) => enclave.stop()));
  expect(reports.map(({ kind }) => kind)).toEqual(["app", "app", "app", "app"]);
  expect(device.listeners.size).toBe(0);
});

test("a parent port that another program has", async () => {
  const device = fakeDevice();
  device.vsock.listen(PORT_HEARTBEAT, () => {});
  await expect(launch(EIF, { device })).rejects.toMatchObject({ code: "E_PARENT_PORT_TAKEN" });
});

describe("logs as a stream", () => {
  const line = (text: string) => ({ type: "log", time: 1, source: "stdout", text }) as const;

  /** Says `count` lines once it is told to stop. */
  const talker =
    (count: number): Script =>
    async (guest) => {
      await beat(guest);
      const channel = control(guest);
      channel.say({ type: "hello", protocol: 1, node: "26", name: "x" }, READY);
      await channel.hear("shutdown");
      channel.say(...Array.from({ length: count }, (_, index) => line(String(index))));
      channel.say({ type: "exit", status: 0, reason: "signal", lastWords: [] });
      await channel.hear("bye");
      guest.end();
    };

  test("come as they are said, and end with the enclave", async () => {
    const { enclave } = await start(talker(3));
    const logs = enclave.logs();
    void enclave.stop();
    const texts: string[] = [];
    for await (const { text } of logs) texts.push(text);
    expect(texts).toEqual(["0", "1", "2"]);
  });

  test("a reader that does not read costs bounded memory, and one that left none", async () => {
    const { enclave } = await start(talker(3000));
    const slow = enclave.logs();
    enclave.logs()[Symbol.asyncIterator]().return?.();
    await enclave.stop();
    let count = 0;
    for await (const _ of slow) count++;
    expect(count).toBe(1024);
  });
});
