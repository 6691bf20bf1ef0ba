/** Whether this machine can run enclaves in the emulator, and `cloister emulate`. */
import { findQemu } from "../emulator/qemu.ts";
import { CloisterError } from "../format/errors.ts";
import { sizeText } from "../launcher/capacity.ts";
import { type Finding, ok, problem, type Tree, warning } from "../launcher/finding.ts";
import { choosePages, readPagePools, tooFewPages } from "../launcher/pages.ts";

export interface LaptopOptions {
  readonly tree: Tree;
  /** Where programs are looked for. */
  readonly path: string;
  /** Runs a program and gives what it prints; rejects where it fails. */
  readonly run: (program: string, args: readonly string[]) => Promise<string>;
  /** Bytes of memory that the enclave is to have. */
  readonly memory: number;
  /** Whether this user may read and write a device. */
  readonly mayUse: (path: string) => boolean;
}

/** The oldest that the tests run with. */
const OLDEST_QEMU = [7, 2] as const;
/** seccomp_unotify(2): SECCOMP_IOCTL_NOTIF_ADDFD with SECCOMP_ADDFD_FLAG_SEND. */
const OLDEST_KERNEL = [5, 14] as const;

export async function checkLaptop(options: LaptopOptions): Promise<Finding[]> {
  return [
    ...(await checkQemu(options)),
    checkAcceleration(options),
    checkMemory(options),
    checkPages(options),
    checkSeccomp(options),
  ];
}

async function checkQemu({ path, run }: LaptopOptions): Promise<Finding[]> {
  let program: string;
  try {
    program = findQemu(undefined, path);
  } catch (error) {
    if (!(error instanceof CloisterError)) throw error;
    return [problem("QEMU", "none", "qemu-system-x86_64", error.fix ?? "")];
  }
  try {
    const version = await run(program, ["--version"]);
    const [, major, minor] = /version (\d+)\.(\d+)/.exec(version) ?? [];
    const text = `${program}, version ${major ?? "?"}.${minor ?? "?"}`;
    const update = "Install a newer QEMU: Debian 12, Ubuntu 23.04, Fedora 38 and later have one.";
    const lacks = (what: string) => problem("QEMU", `${text}, without ${what}`, `one with ${what}`, update);
    if (isOlder([Number(major), Number(minor)], OLDEST_QEMU)) {
      return [problem("QEMU", text, `version ${OLDEST_QEMU.join(".")} or newer`, update)];
    }
    if (!/^microvm\b/m.test(await run(program, ["-M", "help"]))) return [lacks("the machine microvm")];
    const devices = await run(program, ["-M", "microvm", "-device", "help"]);
    if (!devices.includes('"vhost-user-vsock-device"')) return [lacks("the device vhost-user-vsock-device")];
    return [ok("QEMU", text)];
  } catch (error) {
    const found = `${program} does not run: ${error instanceof Error ? error.message.split("\n")[0] : error}`;
    return [problem("QEMU", found, "a QEMU that runs", `Run it by hand: ${program} --version`)];
  }
}

/** NaN is older than anything. */
function isOlder(
  [major, minor]: readonly [number, number],
  [least, then]: readonly [number, number],
): boolean {
  return !(major > least || (major === least && minor >= then));
}

const KVM = "/dev/kvm";
const SLOW = "TCG, which interprets: some 10 times slower";

/** The device alone proves nothing: without virtualization of the processor behind it no stock kernel boots. */
function checkAcceleration({ tree, mayUse }: LaptopOptions): Finding {
  const check = "acceleration";
  if (!/^flags\s*:.*\b(vmx|svm)\b/m.test(tree.text("/proc/cpuinfo") ?? "")) {
    const fix = "Enable it in the firmware; in a virtual machine, nested virtualization. It works without.";
    return warning(check, `no vmx or svm; ${SLOW}`, "KVM", fix);
  }
  if (tree.stat(KVM) === undefined)
    return warning(check, `no ${KVM}; ${SLOW}`, "KVM", "sudo modprobe -a kvm_intel kvm_amd");
  if (mayUse(tree.path(KVM))) return ok(check, "KVM");
  return warning(
    check,
    `${KVM} is not this user's to open; ${SLOW}`,
    "KVM",
    "sudo usermod -aG kvm $USER, and log in again",
  );
}

function checkMemory({ tree, memory }: LaptopOptions): Finding {
  const kib = Number(/^MemAvailable:\s*(\d+) kB$/m.exec(tree.text("/proc/meminfo") ?? "")?.[1] ?? 0);
  const found = `${sizeText(kib * 1024)} available`;
  if (kib * 1024 >= memory) return ok("memory", found);
  return problem(
    "memory",
    found,
    `${sizeText(memory)} for the enclave`,
    "Free some, or give it less with --memory.",
  );
}

/** `cloister emulate` only: a program donates real huge pages there, as on an EC2 parent. */
function checkPages({ tree, memory }: LaptopOptions): Finding {
  const pools = readPagePools(undefined, tree.path("/sys/kernel/mm/hugepages"));
  const found = `free: ${pools.map(({ size, free }) => `${free} of ${sizeText(size)}`).join(", ") || "none"}`;
  if (choosePages(memory, pools) !== undefined) return ok("huge pages", found);
  const { fix = "" } = tooFewPages(memory, pools);
  return warning("huge pages", found, `${sizeText(memory)} for \`cloister emulate\``, fix);
}

/** `cloister emulate` only. */
function checkSeccomp({ tree }: LaptopOptions): Finding {
  const expected = `user notification and Linux ${OLDEST_KERNEL.join(".")} for \`cloister emulate\``;
  const fix = "Use a newer kernel; `cloister run --emulator` needs neither.";
  const actions = tree.text("/proc/sys/kernel/seccomp/actions_avail") ?? "";
  const release = tree.text("/proc/sys/kernel/osrelease") ?? "";
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(release) ?? [];
  const found = `Linux ${release || "?"}, ${actions.includes("user_notif") ? "with" : "without"} user notification`;
  if (!actions.includes("user_notif") || isOlder([Number(major), Number(minor)], OLDEST_KERNEL)) {
    return warning("seccomp", found, expected, fix);
  }
  return ok("seccomp", found);
}
