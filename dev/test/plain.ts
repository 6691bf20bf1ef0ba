/** A test's enclave in a plain process. */
import { bundleApp } from "../../packer/bundle.ts";
import { startBare } from "../bare/index.ts";
import type { Running, Start } from "./running.ts";

/** Rejects as `bundleApp` and `startBare` do, or with the signal's reason. */
export async function startPlain({
  options,
  project,
  local,
  faults,
  signal,
  onEvent,
}: Start): Promise<Running> {
  if (project === undefined) throw new Error("BUG: a bare enclave without a project");
  const bundle = await bundleApp(project);
  signal.throwIfAborted();
  const { admit, now, pause } = faults;
  const nsm = { now, pause, ...options.nsm };
  const enclave = await startBare({ project, bundle, publish: [], egress: { local }, onEvent, nsm, admit });
  const terminate = () => void enclave.terminate();
  signal.addEventListener("abort", terminate, { once: true });
  if (signal.aborted) terminate();
  void enclave.exited.then(() => signal.removeEventListener("abort", terminate));
  const { name, ready, exited, measurements } = enclave;
  return {
    ...{ name, ready, exited, measurements },
    attestationRoot: await enclave.attestationRoot(),
    connect: (port, how) => enclave.connect(port, how),
    stop: (how) => enclave.stop(how),
    terminate: () => enclave.terminate(),
    // It has no machine of its own.
    console: () => "",
  };
}
