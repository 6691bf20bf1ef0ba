/** The life of an enclave under its name, against a device whose enclave is a script; asked from beside it, by its socket. */
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { EnclaveStats } from "../../format/stats.ts";
import {
  askHealth,
  awaitEnd,
  describeEnclave,
  stopEnclave,
  terminateEnclave,
} from "../../launcher/client.ts";
import { followRing } from "../../launcher/follow.ts";
import { NE_ERR, NitroError } from "../../launcher/index.ts";
import { logPath, Registry, socketPath } from "../../launcher/registry.ts";
import { backoffMs, isFailure } from "../../launcher/restart.ts";
import { serve } from "../../launcher/service.ts";
import { Supervisor, type SupervisorEvent, type SupervisorOptions } from "../../launcher/supervisor.ts";
import { tinyEif } from "../emulator/tiny.ts";
import { parseExposition, sampleOf } from "./exposition.ts";
import { beat, control, type FakeOptions, fakeDevice, type Guest, pair, type Script } from "./fake.ts";
import { STATS } from "./stats.ts";

const root = mkdtempSync(join(tmpdir(), "cloister-supervisor-"));
const eif = join(root, "app.eif");
beforeAll(() => writeFileSync(eif, tinyEif([])));
afterAll(() => rmSync(root, { recursive: true }));
let registry: Registry;
beforeEach(() => {
  registry = new Registry(mkdtempSync(join(root, "run-")));
});

const READY = { type: "ready", uptimeMs: 900, ports: [8080] } as const;

/** Becomes ready, then does as it is told by the test. */
async function introduce(guest: Guest) {
  await beat(guest);
  const channel = control(guest);
  channel.say({ type: "hello", protocol: 1, node: "26", name: "x" }, READY);
  return channel;
}

const obedient: Script = async (guest) => {
  const channel = await introduce(guest);
  await channel.hear("shutdown");
  channel.say({ type: "exit", status: 0, reason: "signal", lastWords: [] });
  await channel.hear("bye");
  guest.end();
};

const exits =
  (status: number): Script =>
  async (guest) => {
    const channel = await introduce(guest);
    channel.say({ type: "exit", status, reason: "exit", lastWords: ["bye"] });
    await channel.hear("bye");
    guest.end();
  };

const crashes: Script = async (guest) => {
  await introduce(guest);
  guest.end();
};

interface Begun {
  readonly supervisor: Supervisor;
  readonly device: ReturnType<typeof fakeDevice>;
  readonly events: SupervisorEvent[];
}

async function begin(fake: FakeOptions, options: Partial<SupervisorOptions> = {}): Promise<Begun> {
  const device = fakeDevice(fake);
  const events: SupervisorEvent[] = [];
  const supervisor = await Supervisor.begin(eif, {
    device,
    registry,
    defaultName: "app",
    emulated: true,
    keep: true,
    onEvent: (event) => events.push(event),
    ...options,
  });
  return { supervisor, device, events };
}

const find = () => registry.find("app");

describe("an enclave that runs", () => {
  test("is found by name and id, stopped, and told of afterwards", async () => {
    const { supervisor, device } = await begin({ script: obedient });
    await supervisor.ready;
    const { record } = registry.find(supervisor.record.id ?? "");
    expect(record).toMatchObject({ name: "app", state: "running", cid: 16, memoryMiB: 64, debug: false });
    const end = await stopEnclave(registry, find(), 10_000);
    expect(end).toMatchObject({ by: "stop", report: { kind: "app", status: 0, reason: "signal" } });
    expect(await supervisor.ended).toEqual(end);
    expect(find().record).toMatchObject({ state: "ended", end });
    expect(await awaitEnd(registry, find())).toEqual(end);
    expect(device.vms.filter(({ isOpen }) => isOpen)).toEqual([]);
  });

  test("is terminated, while someone waits", async () => {
    const { supervisor } = await begin({ script: obedient });
    await supervisor.started;
    const waiting = awaitEnd(registry, find());
    const end = await terminateEnclave(registry, find());
    expect(end).toMatchObject({ by: "terminate", report: { kind: "terminated" } });
    expect(await waiting).toEqual(end);
  });

  test("of a foreground run leaves nothing", async () => {
    const { supervisor } = await begin({ script: exits(3) }, { keep: false });
    expect(await supervisor.ended).toMatchObject({ report: { kind: "app", status: 3, lastWords: ["bye"] } });
    expect(readdirSync(registry.directory)).toEqual([".lock"]);
  });

  test.each<[string, Script, object]>([
    ["that ends", exits(7), { report: { kind: "app", status: 7, reason: "exit", lastWords: ["bye"] } }],
    ["that crashes", crashes, { report: { kind: "crash", console: "first line\nlast line\n" } }],
  ])("%s is told apart, and by nobody's wish", async (_, script, expected) => {
    const { supervisor } = await begin({ script });
    const end = await supervisor.ended;
    expect(end).toMatchObject(expected);
    expect(end.by).toBeUndefined();
    expect(find().record.end).toEqual(end);
  });

  test("is described with its image's measurements, though the file is gone", async () => {
    const own = join(root, "gone.eif");
    writeFileSync(own, tinyEif([]));
    const supervisor = await Supervisor.begin(own, {
      device: fakeDevice({ script: obedient }),
      registry,
      defaultName: "app",
      emulated: true,
      keep: true,
    });
    await supervisor.ready;
    rmSync(own);
    const description = await describeEnclave(registry, find());
    expect(description).toMatchObject({
      ImageName: "tiny",
      Measurements: { PCR0: expect.stringMatching(/^[0-9a-f]{96}$/) },
    });
    await terminateEnclave(registry, find());
  });

  test("logs what it says, each event with its time", async () => {
    const { supervisor } = await begin({
      script: async (guest) => {
        const channel = await introduce(guest);
        channel.say({ type: "log", time: 5, source: "stdout", text: "hello" });
        channel.say({ type: "exit", status: 0, reason: "exit", lastWords: [] });
        await channel.hear("bye");
        guest.end();
      },
    });
    await supervisor.ended;
    let lines = "";
    for await (const chunk of followRing(logPath(find().folder), AbortSignal.abort())) lines += chunk;
    const events = lines
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(events.map(({ type }) => type)).toEqual([
      ...["stage", "stage", "stage", "stage", "stage", "ready", "log", "exit"],
    ]);
    expect(events[6]).toMatchObject({ at: expect.any(Number), text: "hello", source: "stdout" });
  });

  test("in debug mode has its console read for it", async () => {
    const device = fakeDevice({ script: obedient });
    const seen: string[] = [];
    const { vsock } = device;
    const dialed: number[] = [];
    const watched = {
      ...device,
      vsock: {
        ...vsock,
        connect: async (cid: number, port: number) => {
          dialed.push(cid, port);
          const [ours, theirs] = pair({ cid: 3, port: 1 }, { cid, port });
          theirs.write("Linux version\r\n");
          return ours;
        },
      },
    };
    const supervisor = await Supervisor.begin(eif, {
      device: watched,
      registry,
      defaultName: "app",
      emulated: true,
      keep: true,
      debug: true,
      onConsole: (chunk) => seen.push(String(chunk)),
    });
    await supervisor.ready;
    await expect.poll(() => seen.join("")).toBe("Linux version\r\n");
    expect(dialed).toEqual([0, 10_016]);
    await terminateEnclave(registry, find());
    let kept = "";
    for await (const chunk of followRing(join(find().folder, "console"), AbortSignal.abort())) kept += chunk;
    expect(kept).toBe("Linux version\r\n");
  });
});

describe("a launch that fails", () => {
  test.each<[string, FakeOptions, Partial<SupervisorOptions>, string]>([
    [
      "the driver refuses",
      { failures: { createVm: new NitroError("NE_CREATE_VM", NE_ERR.NO_CPUS_AVAIL_IN_POOL, "no") } },
      {},
      "E_NE_NO_CPUS_AVAIL_IN_POOL",
    ],
    ["it ends before its heartbeat", { script: (guest) => guest.end() }, {}, "E_ENCLAVE_CRASHED"],
    ["no heartbeat comes", {}, { heartbeatLimitMs: 10 }, "E_HEARTBEAT_TIMEOUT"],
    ["too little memory", {}, { memoryMiB: 1 }, "E_MEMORY_TOO_SMALL"],
  ])("%s: its own error, no restart, nothing left", async (_, fake, options, code) => {
    const { supervisor, device } = await begin(fake, { ...options, restart: { max: 5 } });
    await expect(supervisor.started).rejects.toMatchObject({ code });
    await expect(supervisor.ready).rejects.toMatchObject({ code });
    expect(await supervisor.ended).toMatchObject({ error: { code } });
    expect(readdirSync(registry.directory)).toEqual([".lock"]);
    expect(device.vms.filter(({ isOpen }) => isOpen)).toEqual([]);
  });

  test("no image, no name: before anything is claimed", async () => {
    const options = { device: fakeDevice(), registry, defaultName: "app", emulated: true, keep: true };
    await expect(Supervisor.begin(join(root, "no.eif"), options)).rejects.toMatchObject({
      code: "E_EIF_READ",
    });
    await expect(Supervisor.begin(eif, { ...options, name: "a/b" })).rejects.toMatchObject({
      code: "E_ENCLAVE_NAME",
    });
    expect(registry.list()).toEqual([]);
  });

  test("the name is another's: that one is not touched", async () => {
    const { supervisor } = await begin({ script: obedient }, { name: "app" });
    await expect(begin({ script: obedient }, { name: "app" })).rejects.toMatchObject({
      code: "E_NAME_TAKEN",
    });
    await supervisor.ready;
    await terminateEnclave(registry, find());
  });

  test("stopped while it boots: told as interrupted, nothing left", async () => {
    const { supervisor } = await begin({});
    const end = await terminateEnclave(registry, find());
    expect(end).toMatchObject({ by: "terminate", error: { code: "E_INTERRUPTED" } });
    await expect(supervisor.started).rejects.toMatchObject({ code: "E_INTERRUPTED" });
    await supervisor.ended;
    expect(readdirSync(registry.directory)).toEqual([".lock"]);
  });
});

describe("restart on failure", () => {
  test("backs off, doubling to a minute", () => {
    expect([1, 2, 3, 6, 7, 50].map(backoffMs)).toEqual([1000, 2000, 4000, 32_000, 60_000, 60_000]);
    expect(isFailure({ kind: "app", status: 0, reason: "return", lastWords: [] })).toBe(false);
    expect(isFailure({ kind: "terminated" })).toBe(false);
  });

  test("starts it again as often as was said, on the same published port", async () => {
    let launches = 0;
    const { supervisor, events } = await begin(
      { script: (guest) => exits(++launches)(guest) },
      { restart: { max: 1 }, publish: [{ port: 0, vsockPort: 8080 }] },
    );
    const first = await supervisor.started;
    expect(await supervisor.ended).toMatchObject({ report: { status: 2 } });
    expect(launches).toBe(2);
    expect(find().record).toMatchObject({ restarts: 1, published: first.published });
    expect(events.filter(({ type }) => type === "restart")).toEqual([
      { type: "restart", failures: 1, delayMs: 1000 },
    ]);
  });

  test("an app that ended well stays so; one that is stopped in between too", async () => {
    const well = await begin({ script: exits(0) }, { restart: { max: 3 } });
    expect(await well.supervisor.ended).toMatchObject({ report: { status: 0 } });
    expect(well.device.calls.filter((call) => call === "createVm")).toHaveLength(1);
    const failing = await begin({ script: exits(1) }, { restart: { max: 3 } });
    await expect.poll(() => find().record.state).toBe("restarting");
    expect(await stopEnclave(registry, find(), 1000)).toMatchObject({ by: "stop", report: { status: 1 } });
    expect(failing.device.calls.filter((call) => call === "createVm")).toHaveLength(1);
  });

  test("a restart that the driver refuses is told at the end", async () => {
    const failures: Record<string, Error> = {};
    const { supervisor } = await begin({ script: exits(1), failures }, { restart: { max: 1 } });
    await supervisor.started;
    failures.createVm = new NitroError("NE_CREATE_VM", NE_ERR.NO_CPUS_AVAIL_IN_POOL, "no");
    expect(await supervisor.ended).toMatchObject({ error: { code: "E_NE_NO_CPUS_AVAIL_IN_POOL" } });
    expect(find().record).toMatchObject({ state: "ended", restarts: 1 });
  });
});

describe("how it does", () => {
  /** Tells numbers once it is ready, then obeys. */
  const healthy =
    (stats: EnclaveStats): Script =>
    async (guest) => {
      const channel = await introduce(guest);
      channel.say({ type: "phase", phase: "kernel", uptimeMs: 300 }, { type: "stats", stats });
      await channel.hear("shutdown");
      channel.say({ type: "exit", status: 0, reason: "signal", lastWords: [] });
      await channel.hear("bye");
      guest.end();
    };

  test("is asked by its socket, and by nobody once it ended", async () => {
    const { supervisor } = await begin({ script: healthy({ ...STATS, stalledMs: 12_000 }) });
    await supervisor.ready;
    await expect.poll(async () => (await askHealth(find()))?.condition).toBe("stalled");
    expect(await askHealth(find())).toMatchObject({ alive: true, ready: false, stats: { logRecords: 5 } });
    await stopEnclave(registry, find(), 10_000);
    await supervisor.ended;
    expect(await askHealth(find())).toBeUndefined();
  });

  test("a supervisor that hangs, is of another release or gone holds nobody up", async () => {
    const { supervisor } = await begin({ script: obedient });
    await supervisor.ready;
    const entry = find();
    const folder = mkdtempSync(join(root, "fake-"));
    expect(await askHealth({ ...entry, folder })).toBeUndefined();
    await using stack = new AsyncDisposableStack();
    const hangs = await serve(socketPath(folder), () => new Promise(() => {}));
    stack.defer(() => hangs.close());
    expect(await askHealth({ ...entry, folder })).toBeUndefined();
    const old = mkdtempSync(join(root, "old-"));
    const refuses = await serve(socketPath(old), () => Promise.reject(new Error("health?")));
    stack.defer(() => refuses.close());
    expect(await askHealth({ ...entry, folder: old })).toBeUndefined();
    await terminateEnclave(registry, entry);
  });

  test("is told on its port from the first moment on, over restarts, to its end", async () => {
    let launches = 0;
    const gate = Promise.withResolvers<void>();
    const script: Script = async (guest) => {
      if (++launches === 1) await gate.promise;
      await (launches === 1 ? exits(1) : healthy(STATS))(guest);
    };
    const { supervisor } = await begin(
      { script },
      { restart: { max: 1 }, health: { port: 0 }, publish: [{ port: 0, vsockPort: 8080 }] },
    );
    const { health } = find().record;
    expect(health).toEqual({ address: "127.0.0.1", port: expect.any(Number) });
    const url = `http://127.0.0.1:${health?.port}`;
    const probe = async (path: string) => {
      const response = await fetch(url + path);
      return [response.status, await response.text()];
    };
    expect([await probe("/healthz"), await probe("/readyz")]).toEqual([
      [503, "starting\n"],
      [503, "starting\n"],
    ]);
    gate.resolve();
    await expect.poll(() => probe("/healthz"), { interval: 10 }).toEqual([503, "restarting\n"]);
    await expect.poll(() => probe("/readyz"), { timeout: 10_000 }).toEqual([200, "ready\n"]);
    await expect
      .poll(async () =>
        sampleOf(
          parseExposition(await (await fetch(`${url}/metrics`)).text()),
          "cloister_enclave_heap_used_bytes",
        ),
      )
      .toBe(50);
    const families = parseExposition(await (await fetch(`${url}/metrics`)).text());
    const values = [
      "cloister_enclave_restarts_total",
      "cloister_published_connections_open",
      "cloister_boot_phase_seconds",
    ];
    expect(values.map((name) => sampleOf(families, name))).toEqual([1, 0, 0.3]);
    await stopEnclave(registry, find(), 10_000);
    await supervisor.ended;
    await expect(fetch(`${url}/healthz`)).rejects.toThrow("fetch failed");
  });

  test("a port that is taken: before anything was started, and nothing left", async () => {
    const taken = createServer().listen(0, "127.0.0.1");
    await once(taken, "listening");
    const { port } = taken.address() as AddressInfo;
    const pipes = () => process.getActiveResourcesInfo().filter((name) => name === "PipeWrap").length;
    const before = pipes();
    await expect(begin({ script: obedient }, { health: { port } })).rejects.toMatchObject({
      code: "E_PORT_TAKEN",
    });
    taken.close();
    expect(readdirSync(registry.directory)).toEqual([".lock"]);
    expect(pipes()).toBe(before);
  });
});

describe("what a supervisor is asked", () => {
  test("nonsense gets an error, and silence hurts nobody", async () => {
    const { supervisor } = await begin({ script: obedient });
    await supervisor.ready;
    const path = socketPath(find().folder);
    for (const words of ["{\n", "null\n", '{"verb":"sing"}\n', "\n"]) {
      const socket = connect(path);
      socket.write(words);
      expect(JSON.parse(await text(socket))).toEqual({ error: expect.anything() });
    }
    connect(path).destroy();
    connect(path).on("error", () => {});
    await terminateEnclave(registry, find());
    await supervisor.ended;
    expect(existsSync(path)).toBe(false);
  });

  test("one that never answers is not waited for by the service's end", async () => {
    const service = await serve(join(root, "silent"), () => new Promise(() => {}));
    const socket = connect(join(root, "silent"));
    socket.on("error", () => {});
    socket.write("{}\n");
    await service.close();
    expect(existsSync(join(root, "silent"))).toBe(false);
  });
});
