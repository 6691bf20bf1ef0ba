/** A systemd unit that runs an enclave. Source: systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.kill(5). */
import type { Order } from "./order.ts";

export interface UnitOptions {
  readonly order: Order;
  /** The command that starts it, absolute paths: program, words. */
  readonly command: readonly string[];
  readonly name: string;
  /** Undefined: root. */
  readonly user: string | undefined;
  /** Seconds that `cloister run` may take to stop: the app's time, init's report, the reboot. */
  readonly stopSeconds: number;
}

export function unitText({ order, command, name, user, stopSeconds }: UnitOptions): string {
  const unit = [
    `Description=Enclave ${withoutSpecifiers(name)}`,
    "Documentation=https://docs.aws.amazon.com/enclaves/latest/user/nitro-enclave.html",
    // It reserves the CPUs and the huge pages.
    ...(order.emulated
      ? []
      : ["Wants=nitro-enclaves-allocator.service", "After=nitro-enclaves-allocator.service"]),
    "After=network.target",
    ...(sockets(order).length === 0 ? [] : [`Requires=${withoutSpecifiers(name)}.socket`]),
  ];
  const service = [
    "# Started once the app serves; `cloister run` itself gives up an enclave that does not boot.",
    "Type=notify",
    "NotifyAccess=main",
    "TimeoutStartSec=infinity",
    `ExecStart=${command.map(quote).join(" ")}`,
    "Restart=on-failure",
    "RestartSec=5",
    "# SIGTERM goes to the launcher alone, which asks the app to stop; what is left after the time is killed.",
    "KillMode=mixed",
    `TimeoutStopSec=${stopSeconds}`,
    "# What it ends with where the app did not obey in time.",
    "SuccessExitStatus=143",
    ...(user === undefined ? [] : userLines(order, name, user)),
  ];
  const install = ["WantedBy=multi-user.target", ...socketUnit(order, name)];
  return [
    ["[Unit]", ...unit],
    ["[Service]", ...service],
    ["[Install]", ...install],
  ]
    .map((lines) => `${lines.join("\n")}\n`)
    .join("\n");
}

function userLines({ emulated }: Order, name: string, user: string): string[] {
  return [
    `User=${user}`,
    ...(emulated ? [] : ["SupplementaryGroups=ne"]),
    `# The user's own commands find it with CLOISTER_RUN_DIR=/run/cloister-${name}.`,
    `RuntimeDirectory=cloister-${name}`,
    "RuntimeDirectoryMode=0700",
    `Environment=CLOISTER_RUN_DIR=%t/cloister-${name}`,
  ];
}

/** The names of sockets that systemd is to pass. */
function sockets({ publish }: Order): string[] {
  return publish.flatMap((place) => ("systemd" in place ? [place.systemd] : []));
}

/** The unit beside it, as comments: one file is printed, and only its author knows the addresses. systemd.socket(5). */
function socketUnit(order: Order, name: string): string[] {
  const lines = sockets(order).flatMap((socket) => [
    "# ListenStream=the address to publish on, such as 8080",
    ...(socket === "" ? [] : [`# FileDescriptorName=${socket}`]),
  ]);
  if (lines.length === 0) return [];
  const more = sockets(order).length > 1 ? ["# (a .socket unit for each, with Service= in [Socket])"] : [];
  return [`# ${name}.socket, which passes it what it publishes:`, ...more, "# [Socket]", ...lines];
}

/** `%` begins a specifier. */
function withoutSpecifiers(text: string): string {
  return text.replaceAll("%", "%%");
}

/** A word of ExecStart: quoted where a shell-like splitter would see more than one; `$` begins a variable. */
function quote(word: string): string {
  const escaped = withoutSpecifiers(word).replaceAll("\\", "\\\\").replaceAll("$", "$$$$");
  return /^[A-Za-z0-9_@%+=:,./$-]+$/.test(escaped) ? escaped : `"${escaped.replaceAll('"', '\\"')}"`;
}
