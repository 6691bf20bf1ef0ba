/** Whether this parent instance can start an enclave, before one is started. Everything is read from files. */
import type { Stats } from "node:fs";
import { checkCapacity, type Need } from "./capacity.ts";
import { type Finding, ok, parseCpuList, problem, Tree, warning } from "./finding.ts";

export interface ParentOptions {
  /** Where the machine's files are; default: this machine's. */
  readonly tree?: Tree;
  readonly user: { readonly uid: number; readonly gids: readonly number[] };
  /** Unix milliseconds. */
  readonly now: number;
  /** What an image asks for; undefined: any enclave. */
  readonly need?: Need | undefined;
  /** CPUs that enclaves of this user have. */
  readonly usedCpus: number;
}

const DEVICE = "/dev/nitro_enclaves";
/** PCI ids of the Nitro Enclaves device (Linux drivers/virt/nitro_enclaves/ne_pci_dev.h). */
const PCI_VENDOR = "0x1d0f";
const PCI_DEVICE = "0xe4c1";
const PCI = "/sys/bus/pci/devices";
const DRIVER = "/sys/module/nitro_enclaves";

export function checkParent(options: ParentOptions): Finding[] {
  const tree = options.tree ?? new Tree();
  return [
    ...checkDevice(tree, options.user),
    ...checkAllocator(tree),
    ...checkCapacity(tree, options.need, options.usedCpus),
    checkVsock(tree),
    checkClock(tree, options.now),
  ];
}

function checkInstance(tree: Tree): Finding {
  const enabled = tree
    .list(PCI)
    .some(
      (name) =>
        tree.text(`${PCI}/${name}/vendor`) === PCI_VENDOR &&
        tree.text(`${PCI}/${name}/device`) === PCI_DEVICE,
    );
  if (enabled) return ok("instance", "enclaves enabled");
  const vendor = tree.text("/sys/devices/virtual/dmi/id/sys_vendor") ?? "an unknown maker";
  const expected = "an EC2 instance with enclaves enabled";
  if (vendor !== "Amazon EC2") {
    return problem("instance", `a machine of ${vendor}`, expected, "Run enclaves here with --emulator.");
  }
  const fix =
    "Stop it, then: aws ec2 modify-instance-attribute --instance-id ID --attribute enclaveOptions --value Enabled=true; " +
    "the instance type must support enclaves.";
  return problem("instance", "an EC2 instance without them", expected, fix);
}

function checkDriver(tree: Tree): Finding {
  if (tree.stat(DRIVER)?.isDirectory()) return ok("driver", "nitro_enclaves is loaded");
  return problem("driver", "not loaded", "nitro_enclaves loaded", "sudo modprobe nitro_enclaves");
}

/** A device that is there has the rest behind it; one that is not, its reasons. */
function checkDevice(tree: Tree, user: ParentOptions["user"]): Finding[] {
  const stat = tree.stat(DEVICE);
  if (stat === undefined) {
    const absent = problem("device", `no ${DEVICE}`, "one", "sudo modprobe nitro_enclaves");
    return [checkInstance(tree), checkDriver(tree), absent];
  }
  if (mayUse(stat, user)) return [ok("device", `${DEVICE} may be read and written`)];
  const found = `mode ${(stat.mode & 0o777).toString(8)}, owner ${stat.uid}, group ${stat.gid}`;
  return [problem("device", found, "one that this user may open", deviceFix(groupName(tree, stat.gid)))];
}

function deviceFix(group: string | undefined): string {
  return group === undefined || group === "root"
    ? "sudo groupadd -f ne && sudo chown root:ne /dev/nitro_enclaves && sudo chmod 660 /dev/nitro_enclaves && " +
        "sudo usermod -aG ne $USER, and log in again; the package aws-nitro-enclaves-cli has a udev rule for it"
    : `sudo usermod -aG ${group} $USER, and log in again`;
}

function mayUse({ mode, uid, gid }: Stats, user: ParentOptions["user"]): boolean {
  if (user.uid === 0) return true;
  const shift = user.uid === uid ? 6 : user.gids.includes(gid) ? 3 : 0;
  return ((mode >> shift) & 0o6) === 0o6;
}

function groupName(tree: Tree, gid: number): string | undefined {
  const line = (tree.text("/etc/group") ?? "").split("\n").find((text) => text.split(":")[2] === String(gid));
  return line?.split(":")[0];
}

const CONFIG = "/etc/nitro_enclaves/allocator.yaml";
const UNIT = "nitro-enclaves-allocator.service";
const RESTART = `sudo systemctl enable --now ${UNIT} && sudo systemctl restart ${UNIT}`;

/** What reserves CPUs and pages on most parents; whoever reserves them otherwise needs none. */
function checkAllocator(tree: Tree): Finding[] {
  const config = tree.text(CONFIG);
  if (config === undefined) {
    const fix = "sudo dnf install -y aws-nitro-enclaves-cli, or reserve CPUs and pages yourself.";
    return [warning("allocator", `no ${CONFIG}`, "the allocator's configuration", fix)];
  }
  // An active unit has this mark, a dangling link (systemd, src/core/unit.c, unit_export_invocation_id).
  if (!tree.has("/run/systemd/units", `invocation:${UNIT}`)) {
    return [warning("allocator", `${UNIT} is not active`, "active", RESTART)];
  }
  const field = (name: string) =>
    new RegExp(`^${name}:\\s*"?([^"#\\n]*?)"?\\s*(?:#.*)?$`, "m").exec(config)?.[1];
  const pool = parseCpuList(tree.text(`${DRIVER}/parameters/ne_cpus`) ?? "").length;
  const list = field("cpu_pool");
  const wanted = list === undefined ? Number(field("cpu_count") ?? 0) : parseCpuList(list).length;
  if (wanted !== pool) {
    return [warning("allocator", `${pool} CPUs in the pool`, `${wanted}, as ${CONFIG} says`, RESTART)];
  }
  return [ok("allocator", `active: ${field("memory_mib") ?? "?"} MiB, ${wanted} CPUs`)];
}

function checkVsock(tree: Tree): Finding {
  if (tree.stat("/dev/vsock") !== undefined) return ok("vsock", "/dev/vsock");
  return problem("vsock", "no /dev/vsock", "one", "sudo modprobe vmw_vsock_virtio_transport");
}

/** The enclave has its time from the parent, and certificates are checked against it. */
const OLDEST_TIME = Date.UTC(2026, 0, 1);
/** A daemon that sets the clock: where it leaves a mark. */
const CLOCK_MARKS: readonly [folder: string, name: string][] = [
  ["/run/systemd/timesync", "synchronized"],
  ["/run/chrony", "chronyd.pid"],
  ["/run/chrony", "chronyd.sock"],
  ["/run", "chronyd.pid"],
  ["/run", "ntpd.pid"],
];

function checkClock(tree: Tree, now: number): Finding {
  const fix = "sudo systemctl enable --now chronyd, or systemd-timesyncd";
  if (now < OLDEST_TIME) return problem("clock", new Date(now).toISOString(), "the time", fix);
  const mark = CLOCK_MARKS.find(([folder, name]) => tree.has(folder, name));
  if (mark !== undefined)
    return ok("clock", `set by ${mark[1] === "synchronized" ? "timesyncd" : mark[1].split(".")[0]}`);
  return warning("clock", "nothing that sets it", "chronyd or systemd-timesyncd", fix);
}
