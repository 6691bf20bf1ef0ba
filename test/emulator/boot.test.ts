/** Whole enclaves on QEMU: START to hangup, console, PCRs, several at once. Each boot takes about two seconds. */
import { text } from "node:stream/consumers";
import { afterEach, describe, expect, onTestFailed, test } from "vitest";
import { createEmulatedDevice, type EmulatedDeviceOptions, type EmulatedVm } from "../../emulator/index.ts";
import { CONSOLE_PORT_BASE, HEARTBEAT_BYTE, PORT_HEARTBEAT } from "../../format/abi.ts";
import { toHex } from "../../format/struct.ts";
import { NE_ENCLAVE_DEBUG_MODE, NE_ERR, type NitroDevice } from "../../launcher/device.ts";
import { heartbeat, print, restart, tinyEif } from "./tiny.ts";

const BOOT_MS = 120_000;
const MIB = 1 << 20;

const devices: NitroDevice[] = [];
afterEach(() => {
  for (const device of devices.splice(0)) device.close();
});

function makeDevice(options?: EmulatedDeviceOptions) {
  const device = createEmulatedDevice(options);
  devices.push(device);
  return device;
}

type Device = ReturnType<typeof makeDevice>;

/** A slot with memory in several regions, the image in them, and a core. */
function prepare(device: Device, eif: Uint8Array): EmulatedVm {
  const vm = device.createVm();
  const regions = [6, 2, 20, 36].flatMap((mib) => device.allocateMemory(mib * MIB));
  let rest: Uint8Array = Buffer.concat([Buffer.alloc(vm.imageLoadOffset()), eif]);
  for (const { bytes, size } of regions) {
    bytes.set(rest.subarray(0, size));
    rest = rest.subarray(size);
  }
  for (const region of regions) vm.setMemoryRegion(region);
  vm.addVcpu(0);
  vm.addVcpu(0);
  onTestFailed(() => console.error(vm.consoleTail()));
  return vm;
}

test(
  "boots an image across regions, shows its console in debug mode, hangs up at its end",
  async () => {
    const commands: string[] = [];
    const device = makeDevice({ onCommand: (argv) => commands.push(argv.join(" ")) });
    const vm = prepare(device, tinyEif([print("hello from init\n"), ...restart]));
    const cid = await vm.start({ flags: NE_ENCLAVE_DEBUG_MODE, cid: 0 });
    expect(commands).toEqual([expect.stringContaining("qemu-system-x86_64 -M microvm")]);
    expect(cid).toBe(16);
    const readers = [1, 2].map(async () => text(await device.vsock.connect(0, CONSOLE_PORT_BASE + cid)));
    await vm.hangup;
    for (const console of await Promise.all(readers)) {
      expect(console).toMatch(/Linux version .*hello from init\r\n/s);
      expect(console).toContain("tsc=reliable cloister.debug=1");
    }
    await expect(device.vsock.connect(0, CONSOLE_PORT_BASE + cid)).rejects.toMatchObject({
      code: "ECONNRESET",
    });
    expect(() => vm.addVcpu(0)).toThrow(expect.objectContaining({ errno: NE_ERR.NOT_IN_INIT_STATE }));
    const { pcr0 } = (await vm.measurements) ?? {};
    expect(toHex(pcr0 ?? new Uint8Array())).toMatch(/^[0-9a-f]{96}$/);
  },
  BOOT_MS,
);

test(
  "two enclaves side by side: listeners know who calls, CIDs are not shared, closing is terminating",
  async () => {
    const device = makeDevice();
    const callers = new Set<number>();
    const { promise: bothCalled, resolve } = Promise.withResolvers<void>();
    device.vsock.listen(PORT_HEARTBEAT, (stream) => {
      // The enclave is terminated while it is connected.
      stream.on("error", () => {});
      stream.once("data", (chunk: Buffer) => {
        expect([...chunk]).toEqual([HEARTBEAT_BYTE]);
        callers.add(stream.remoteCid);
        if (callers.size === 2) resolve();
      });
    });
    const eif = tinyEif(heartbeat());
    const [first, second] = [prepare(device, eif), prepare(device, eif)];
    expect(await first.start({ flags: 0, cid: 0 })).toBe(16);
    await expect(second.start({ flags: 0, cid: 16 })).rejects.toMatchObject({
      errno: NE_ERR.INVALID_ENCLAVE_CID,
    });
    expect(await second.start({ flags: 0, cid: 1234 })).toBe(1234);
    await bothCalled;
    expect([...callers].sort()).toEqual([1234, 16]);
    // Production mode: no console on the hypervisor's CID.
    await expect(device.vsock.connect(0, CONSOLE_PORT_BASE + 16)).rejects.toMatchObject({
      code: "ECONNRESET",
    });
    first.close();
    await first.hangup;
    await expect(device.vsock.connect(16, 1)).rejects.toMatchObject({ code: "ECONNRESET" });
    expect(second.pid).toBeDefined();
  },
  BOOT_MS,
);

describe("does not start", () => {
  test("an image that the hypervisor refuses; the slot can be used again", async () => {
    const device = makeDevice();
    const eif = tinyEif(restart);
    eif[1000] = (eif[1000] ?? 0) ^ 1;
    const vm = prepare(device, eif);
    const refused = { errno: 22, cause: expect.objectContaining({ code: "E_EIF_CRC" }) };
    await expect(vm.start({ flags: 0, cid: 77 })).rejects.toMatchObject(refused);
    await expect(vm.start({ flags: 0, cid: 77 })).rejects.toMatchObject({ errno: 22 });
    expect(vm.pid).toBeUndefined();
  });

  test("a QEMU that cannot run it says so on the console", async () => {
    const device = makeDevice({ program: "/bin/ls" });
    const vm = prepare(device, tinyEif(restart));
    await vm.start({ flags: 0, cid: 0 });
    await vm.hangup;
    expect(vm.consoleTail()).toContain("ls: ");
  });

  test("a slot that is closed while it starts", async () => {
    const device = makeDevice();
    const vm = prepare(device, tinyEif(restart));
    const started = vm.start({ flags: 0, cid: 0 });
    vm.close();
    await expect(started).rejects.toThrow("the enclave was closed");
    await vm.hangup;
  });
});

/** A QEMU from 9.2 on that has the nitro-enclave machine, which distributions leave out. */
const nitroQemu = process.env.CLOISTER_NITRO_QEMU;

test.skipIf(nitroQemu === undefined)(
  "the same image on QEMU's own nitro-enclave machine",
  async () => {
    const device = makeDevice({
      program: nitroQemu ?? "",
      machine: "nitro-enclave",
      firmware: ["/usr/share/qemu", "/usr/share/seabios"],
    });
    const { promise: alive, resolve } = Promise.withResolvers<void>();
    device.vsock.listen(PORT_HEARTBEAT, (stream) => {
      stream.once("data", (chunk: Buffer) => stream.end(chunk));
      stream.once("data", () => resolve());
    });
    const vm = prepare(device, tinyEif([...heartbeat(), print("beaten\n"), ...restart]));
    await vm.start({ flags: NE_ENCLAVE_DEBUG_MODE, cid: 0 });
    await Promise.race([alive, vm.hangup]);
    await vm.hangup;
    expect(vm.consoleTail()).toContain("beaten");
    expect(vm.consoleTail()).toMatch(/virtio_mmio.device=512@0xfeb00c00:11 reboot=t .*cloister.debug=1/);
  },
  BOOT_MS,
);
