/** A test's enclave in the emulator: the image that would be shipped, in a VM. */
import { join } from "node:path";
import { createEmulatedDevice, type EmulatedVm } from "../../emulator/index.ts";
import type { Measurements } from "../../format/measurement.ts";
import { launch } from "../../launcher/launch.ts";
import { build } from "../../packer/build.ts";
import { faultyVsock } from "./fault.ts";
import type { Running, Start } from "./running.ts";

/** Rejects as `build` and `launch` do, or with the signal's reason. */
export async function startMachine(start: Start): Promise<Running> {
  const { options, faults, signal, local, onEvent } = start;
  const eif = options.eif ?? (await buildImage(start));
  signal.throwIfAborted();
  const { now, pause } = faults;
  await using stack = new AsyncDisposableStack();
  const emulated = stack.use(createEmulatedDevice({ nsm: { now, pause, ...options.nsm } }));
  let vm: EmulatedVm | undefined;
  const device = {
    ...emulated,
    vsock: faultyVsock(emulated.vsock, faults),
    createVm: () => {
      vm = emulated.createVm();
      return vm;
    },
  };
  const enclave = await launch(eif, { device, egress: { local }, signal, onEvent, now });
  stack.use(enclave);
  const measurements = await measured(vm);
  const attestationRoot = await emulated.attestationRoot();
  const resources = stack.move();
  const { name, ready } = enclave;
  return {
    ...{ name, ready, measurements, attestationRoot },
    exited: enclave.exited.finally(() => resources.disposeAsync()),
    connect: (port, how) => enclave.connect(port, how),
    stop: (how) => enclave.stop(how),
    terminate: () => enclave.terminate(),
    console: () => vm?.consoleTail() ?? "",
  };
}

async function buildImage({ project, options, folder }: Start): Promise<string> {
  if (project === undefined) throw new Error("BUG: neither a project nor an image");
  const { directory, entry, config } = project;
  const { eifPath } = await build({
    ...{ directory, entry },
    output: join(folder, "app.eif"),
    overrides: { ...options.config, ca: config.ca },
  });
  return eifPath;
}

/** By the hypervisor, of what is in the enclave's memory. */
async function measured(vm: EmulatedVm | undefined): Promise<Measurements> {
  const measurements = await vm?.measurements;
  if (measurements === undefined) throw new Error("the enclave ended before it was measured");
  return measurements;
}
