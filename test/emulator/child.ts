/**
 * Runs as a process of its own, to be killed: starts an enclave (of an EIF) or a bare
 * program (with arguments), prints the child's pid, waits.
 */
import { openSync, readFileSync } from "node:fs";
import { createEmulatedDevice } from "../../emulator/index.ts";
import { startMachine } from "../../emulator/machine.ts";

const [, , kind, argument = "", ...args] = process.argv;

async function startEnclave(path: string): Promise<number | undefined> {
  const device = createEmulatedDevice();
  const vm = device.createVm();
  const regions = device.allocateMemory(64 << 20);
  regions[0]?.bytes.set(readFileSync(path), vm.imageLoadOffset());
  for (const region of regions) vm.setMemoryRegion(region);
  vm.addVcpu(0);
  vm.addVcpu(0);
  await vm.start({ flags: 0, cid: 0 });
  return vm.pid;
}

async function startProgram(program: string): Promise<number> {
  const nothing = openSync("/dev/null", "r+");
  const machine = await startMachine({
    program,
    args,
    vsock: nothing,
    kernel: nothing,
    initramfs: nothing,
  });
  return machine.pid;
}

console.log(kind === "enclave" ? await startEnclave(argument) : await startProgram(argument));
setInterval(() => {}, 60_000);
