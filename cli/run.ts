import { userInfo } from "node:os";
import { basename, extname } from "node:path";
import { fileURLToPath } from "node:url";
import { developmentRootPath } from "../emulator/nsm/root.ts";
import { CloisterError } from "../format/errors.ts";
import { notifyManager } from "../launcher/notify.ts";
import type { EnclaveEnd } from "../launcher/record.ts";
import { nameLike } from "../launcher/registry.ts";
import type { Supervisor } from "../launcher/supervisor.ts";
import { command, type Io, oneOperand } from "./command.ts";
import { STOP_DEADLINE_MS } from "./deadline.ts";
import { detach } from "./detach.ts";
import { jsonEvents, type Show, textEvents } from "./events.ts";
import { ALLOW_LOCAL, localEgressText } from "./local.ts";
import { placeText, publishText } from "./operand.ts";
import { beginOrder, type Order, openRegistry, parseOrder } from "./order.ts";
import { exitStatus } from "./outcome.ts";
import { type Progress, progress } from "./progress.ts";
import { reportError } from "./report.ts";
import { runJson } from "./summary.ts";
import { unitText } from "./unit.ts";

/** The app's time, then init's report, its reboot and what is on its way, with room to spare. Seconds. */
const STOP_SECONDS = STOP_DEADLINE_MS / 1000 + 20;

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
      description:
        "Relay a TCP port of this machine to the app; port 0 takes a free one. Or unix:PATH:VSOCKPORT, systemd[:NAME]:VSOCKPORT",
    },
    "vsock-socket": {
      type: "string",
      value: "PATH",
      description: "A Unix socket that leads to any vsock port of the enclave, for its `CONNECT PORT` line",
    },
    "allow-local": ALLOW_LOCAL,
    detach: {
      type: "boolean",
      short: "d",
      description: "Return once the app serves, and leave it running: see `cloister ps`",
    },
    restart: {
      type: "string",
      value: "on-failure[:MAX]",
      description: "Start it again after a crash or a status other than 0, each time later",
    },
    "health-port": {
      type: "string",
      value: "[ADDR:]PORT",
      description: "Serve /healthz, /readyz and /metrics there (on 127.0.0.1); port 0 takes a free one",
    },
    systemd: { type: "boolean", description: "Start nothing; print a systemd unit that would" },
    verbose: {
      type: "boolean",
      short: "v",
      description: "Boot phases and the QEMU command on standard error",
    },
    quiet: {
      type: "boolean",
      short: "q",
      description: "Of standard error only what the app writes, and errors",
    },
    json: { type: "boolean", description: "Log records and events as JSON lines on standard error" },
  },
  examples: [
    "cloister run app.eif --emulator --publish 8080:8080",
    "cloister run app.eif --emulator --debug --memory 1G --cpus 2",
    "cloister run app.eif --detach --restart on-failure:5 && cloister logs -f app",
    "cloister run app.eif --publish 8080:8080 --systemd | sudo tee /etc/systemd/system/app.service",
  ],
  async run(io, operands, values) {
    const path = oneOperand(run, operands, "EIF file");
    const order = parseOrder(path, io.directory, values);
    if (values.systemd === true) {
      io.stdout.write(systemdUnit(order));
      return 0;
    }
    const quiet = values.quiet === true;
    const step = progress(io, quiet);
    step(`Starting ${path}`);
    const show =
      values.json === true ? jsonEvents(io.stderr) : textEvents(io.stderr, values.verbose === true);
    const watch: Watch = {
      step,
      quiet,
      json: values.json === true,
      show: (event) => {
        step.done();
        if (!quiet || event.type === "log") show(event);
      },
      onCommand: (argv) => values.verbose === true && io.stderr.write(emulatorText(argv, io)),
    };
    try {
      return values.detach === true ? await runDetached(io, order, watch) : await runHere(io, order, watch);
    } finally {
      step.done();
    }
  },
});

/** What only the emulator has: a QEMU to look at, and a root of its own. */
function emulatorText(argv: readonly string[], io: Io): string {
  const root = developmentRootPath(io.env);
  return `$ ${argv.join(" ")}\ncloister: attestation root: ${root}; cloister attest --root dev\n`;
}

interface Watch {
  readonly step: Progress;
  readonly quiet: boolean;
  readonly json: boolean;
  readonly show: Show;
  readonly onCommand: (argv: readonly string[]) => void;
}

async function runDetached(io: Io, order: Order, { step, show, onCommand }: Watch): Promise<number> {
  const record = await detach(order, io, (notice) => {
    if ("event" in notice) show(notice.event);
    else if ("command" in notice) onCommand(notice.command);
  });
  step.done();
  io.stdout.write(`${JSON.stringify(runJson(record), null, 2)}\n`);
  return 0;
}

async function runHere(io: Io, order: Order, watch: Watch): Promise<number> {
  const { step, show, onCommand, json } = watch;
  const supervisor = await beginOrder(order, openRegistry(io), false, {
    onEvent: show,
    onCommand,
    onConsole: (chunk) => io.stderr.write(chunk),
  });
  // A signal while it boots ends the launch; later ones ask the app first.
  const stop = () => void supervisor.stop({ by: "shutdown", deadlineMs: STOP_DEADLINE_MS });
  io.signal.addEventListener("abort", stop, { once: true });
  if (io.signal.aborted) stop();
  const record = await supervisor.started.finally(() => io.signal.removeEventListener("abort", stop));
  step.done();
  io.stdout.write(`${JSON.stringify(runJson(record), null, 2)}\n`);
  // E_APP_ENDED comes by `ended` too.
  supervisor.ready.then(() => notifyManager(io.env.NOTIFY_SOCKET, "READY=1")).catch(() => {});
  const end = await untilEnd(supervisor, io, watch);
  try {
    return exitStatus(record.name, end);
  } catch (error) {
    return reportError(error, json ? ["run", "--json"] : ["run"], io, true);
  }
}

function untilEnd(supervisor: Supervisor, io: Io, { quiet, json }: Watch): Promise<EnclaveEnd> {
  const stop = () => {
    if (!quiet && !json) {
      io.stderr.write(`cloister: asking ${supervisor.record.name} to stop; again to terminate it\n`);
    }
    notifyManager(io.env.NOTIFY_SOCKET, "STOPPING=1");
    void supervisor.stop({ by: "shutdown", deadlineMs: STOP_DEADLINE_MS });
  };
  if (io.signal.aborted) stop();
  else io.signal.addEventListener("abort", stop, { once: true });
  return supervisor.ended;
}

function systemdUnit(order: Order): string {
  if (order.cid !== undefined) {
    const fix = "Leave --cid out: the unit's enclave gets a new CID with every start.";
    throw new CloisterError("E_USAGE", `--systemd: found --cid ${order.cid}, expected none`, { fix });
  }
  const name = order.name ?? nameLike(basename(order.eif, ".eif"));
  const entry = fileURLToPath(new URL(`entry${extname(import.meta.url)}`, import.meta.url));
  const { publish, vsockSocket, egress, memoryMiB, cpus, restart, health } = order;
  const words = [
    ...(order.emulated ? ["--emulator"] : []),
    ...(order.debug ? ["--debug"] : []),
    ...["--name", name],
    ...(memoryMiB === undefined ? [] : ["--memory", `${memoryMiB}M`]),
    ...(cpus === undefined ? [] : ["--cpus", String(cpus)]),
    ...publish.flatMap((published) => ["--publish", publishText(published)]),
    ...(vsockSocket === undefined ? [] : ["--vsock-socket", vsockSocket]),
    ...(egress?.local ?? []).flatMap((local) => ["--allow-local", localEgressText(local)]),
    ...(health === undefined ? [] : ["--health-port", placeText(health)]),
  ];
  if (restart !== undefined) {
    const fix = "Leave --restart out: the unit has Restart=on-failure; edit it for other limits.";
    throw new CloisterError("E_USAGE", "--systemd: found --restart, expected none", { fix });
  }
  return unitText({
    order,
    name,
    command: [process.execPath, entry, "run", order.eif, ...words],
    user: process.getuid?.() === 0 ? undefined : userInfo().username,
    stopSeconds: STOP_SECONDS,
  });
}
