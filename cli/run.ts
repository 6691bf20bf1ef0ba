import { createEmulatedDevice } from "../emulator/index.ts";
import { CloisterError } from "../format/errors.ts";
import {
  type Enclave,
  type EnclaveEvent,
  type ExitReport,
  launch,
  openNitroDevice,
} from "../launcher/index.ts";
import { command, type Io, oneOperand } from "./command.ts";
import { parseInteger, parseMemory, parsePublish } from "./operand.ts";
import { progress } from "./progress.ts";

/** How long a stopped app may take before the enclave is terminated, milliseconds. */
const STOP_DEADLINE_MS = 10_000;
/** What shells report for a process that a SIGTERM ended: 128 + 15. */
const STATUS_TERMINATED = 143;

export const run = command({
  name: "run",
  operands: "FILE",
  options: {
    emulator: { type: "boolean", description: "Run it in the emulator (QEMU), not on /dev/nitro_enclaves" },
    memory: { type: "string", value: "SIZE", description: "Enclave memory: 512M, 2G (default: the EIF's)" },
    cpus: { type: "string", value: "N", description: "Number of CPUs (default: the EIF's)" },
    cid: { type: "string", value: "N", description: "The enclave's CID (default: chosen)" },
    name: { type: "string", value: "NAME", description: "The enclave's name (default: the file's)" },
    debug: { type: "boolean", description: "Debug mode: console on standard error, PCRs attested as zero" },
    publish: {
      type: "string",
      short: "p",
      multiple: true,
      value: "[ADDR:]PORT:VSOCKPORT",
      description: "Relay a TCP port of this machine to the app; port 0 takes a free one",
    },
    verbose: {
      type: "boolean",
      short: "v",
      description: "Boot phases and the QEMU command on standard error",
    },
    json: { type: "boolean", description: "Log records and events as JSON lines on standard error" },
  },
  examples: [
    "cloister run app.eif --emulator --publish 8080:8080",
    "cloister run app.eif --emulator --debug --memory 1G --cpus 2",
  ],
  async run(io, operands, values) {
    const path = oneOperand(run, operands, "EIF file");
    const show = values.json === true ? jsonEvents(io) : textEvents(io, values.verbose === true);
    const step = progress(io);
    step(`Starting ${path}`);
    const onCommand = (argv: readonly string[]) => io.stderr.write(`$ ${argv.join(" ")}\n`);
    using device =
      values.emulator === true
        ? createEmulatedDevice(values.verbose === true ? { onCommand } : {})
        : openNitroDevice();
    // A signal while it boots ends the launch; later ones ask the app first.
    const launching = new AbortController();
    const interrupt = () =>
      launching.abort(new CloisterError("E_INTERRUPTED", `${path}: interrupted while it booted`));
    io.signal.addEventListener("abort", interrupt, { once: true });
    const enclave = await launch(path, {
      device,
      debug: values.debug === true,
      publish: (values.publish ?? []).map(parsePublish),
      ...(values.name !== undefined && { name: values.name }),
      ...(values.memory !== undefined && { memoryMiB: parseMemory("--memory", values.memory) }),
      ...(values.cpus !== undefined && { cpus: parseInteger("--cpus", values.cpus, 1, 512) }),
      ...(values.cid !== undefined && { cid: parseInteger("--cid", values.cid, 4, 0xffff_fffe) }),
      signal: launching.signal,
      onEvent: (event) => {
        step.done();
        show(event);
      },
    }).finally(() => {
      step.done();
      io.signal.removeEventListener("abort", interrupt);
    });
    io.stdout.write(`${JSON.stringify(startedJson(enclave), null, 2)}\n`);
    if (values.debug === true) await showConsole(enclave, io);
    return exitStatus(await untilEnd(enclave, io), enclave);
  },
});

/** nitro-cli run-enclave's keys in its order, then ours. */
export function startedJson(enclave: Enclave): object {
  return {
    EnclaveName: enclave.name,
    EnclaveID: enclave.id,
    ProcessID: process.pid,
    EnclaveCID: enclave.cid,
    NumberOfCPUs: enclave.cpuIds.length,
    CPUIDs: enclave.cpuIds,
    MemoryMiB: enclave.memoryMiB,
    Published: enclave.published.map(({ address, port, vsockPort }) => ({
      Address: address,
      Port: port,
      VsockPort: vsockPort,
    })),
  };
}

function untilEnd(enclave: Enclave, io: Io): Promise<ExitReport> {
  const stop = () => {
    io.stderr.write(`cloister: asking ${enclave.name} to stop; again to terminate it\n`);
    void enclave.stop({ deadlineMs: STOP_DEADLINE_MS });
  };
  if (io.signal.aborted) stop();
  else io.signal.addEventListener("abort", stop, { once: true });
  return enclave.exited;
}

function exitStatus(report: ExitReport, { name }: Enclave): number {
  switch (report.kind) {
    case "app":
      return report.status;
    case "terminated":
      return STATUS_TERMINATED;
    case "crash":
      throw new CloisterError("E_ENCLAVE_CRASHED", `${name}: the enclave ended without an exit report`, {
        details: report.console,
      });
  }
}

async function showConsole(enclave: Enclave, io: Io): Promise<void> {
  const console = await enclave.console();
  console.on("error", () => {});
  console.pipe(io.stderr, { end: false });
}

function jsonEvents(io: Io): (event: EnclaveEvent) => void {
  return (event) => io.stderr.write(`${JSON.stringify(event)}\n`);
}

// A hostile enclave's text must not drive the user's terminal: tab stays, other control characters are shown.
const CONTROL = /[\u0000-\u0008\u000a-\u001f\u007f-\u009f]/g;

function textEvents(io: Io, verbose: boolean): (event: EnclaveEvent) => void {
  const say = (text: string) => io.stderr.write(`${text}\n`);
  const seconds = (ms: number) => `${(ms / 1000).toFixed(2)} s`;
  return (event) => {
    switch (event.type) {
      case "log": {
        if (event.dropped > 0) say(`cloister: ${event.dropped} log records were dropped here`);
        if (event.source === "init" && !verbose) break;
        const shown = event.text.replace(
          CONTROL,
          (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`,
        );
        say(event.source === "init" ? `init: ${shown}` : shown);
        break;
      }
      case "fault":
        say(`cloister: control channel: ${event.reason}`);
        break;
      case "ready":
        say(`cloister: ready after ${seconds(event.elapsedMs)}`);
        break;
      case "stage":
        if (verbose) say(`cloister: ${event.stage} at ${seconds(event.elapsedMs)}`);
        break;
      case "phase":
        if (verbose) say(`cloister: enclave: ${event.phase} at ${seconds(event.uptimeMs)} of its uptime`);
        break;
      case "exit":
        if (event.report.kind === "app")
          say(`cloister: exit status ${event.report.status} (${event.report.reason})`);
    }
  };
}
