/**
 * The QEMU that plays the Nitro hypervisor's machine: which one, how fast, and with which arguments.
 * Stock `microvm` boots kernel and initramfs that we took from the EIF; QEMU 9.2's `nitro-enclave`, where it was built
 * in, takes the EIF itself and has a real NSM.
 */
import { accessSync, constants, readFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { TAIL_DEBUG_MODE, TAIL_EMULATED_NSM } from "../format/abi.ts";
import { CloisterError } from "../format/errors.ts";

const PROGRAM = "qemu-system-x86_64";

export type Accelerator = "kvm" | "tcg";
export type MachineKind = "microvm" | "nitro-enclave";

export interface QemuOptions {
  /** Program; default: `qemu-system-x86_64` on PATH. */
  readonly program?: string;
  /** Folders with firmware, for a QEMU that was not installed where it expects to be. */
  readonly firmware?: readonly string[];
  /** Default: microvm. */
  readonly machine?: MachineKind;
  /** Default: KVM where it really works. */
  readonly accelerator?: Accelerator;
}

/** Descriptor numbers in the QEMU process, in the order in which spawn() gets them. */
export const DESCRIPTOR = { vsock: 3, kernel: 4, initramfs: 5, leash: 6 } as const;

export interface QemuPlan {
  readonly machine: MachineKind;
  readonly accelerator: Accelerator;
  readonly firmware: readonly string[];
  /** Bytes. */
  readonly memory: number;
  readonly cpus: number;
  /** The EIF's cmdline; QEMU reads it from the EIF itself for `nitro-enclave`. */
  readonly cmdline: string;
  readonly debug: boolean;
  /** For the NSM of `nitro-enclave`: its `module_id`, and what PCR3 and PCR4 are made from. */
  readonly id: string;
  readonly instanceId: string;
  readonly roleArn: string | undefined;
}

/**
 * Where virtio-mmio transports lie, which the kernel learns from its command line: 8 of 512 bytes from 0xfeb00000, IRQs
 * from 5 (QEMU hw/i386/microvm.c). `nitro-enclave` takes the last ones, vsock before NSM (hw/i386/nitro_enclave.c).
 */
const VIRTIO_MMIO: Record<MachineKind, readonly string[]> = {
  microvm: ["virtio_mmio.device=512@0xfeb00000:5"],
  "nitro-enclave": ["virtio_mmio.device=512@0xfeb00e00:12", "virtio_mmio.device=512@0xfeb00c00:11"],
};

/**
 * TCG runs `rep movsb` byte by byte. A kernel that sees ERMS or FSRM copies with it, one that sees neither takes 8 bytes a
 * step: measured, vsock transfers cost the guest 40 % less CPU time.
 */
const CPU_MODEL: Record<Accelerator, string> = { kvm: "host", tcg: "max,erms=off,fsrm=off" };

/** The whole command line of QEMU after the program's name. */
export function qemuArguments(plan: QemuPlan): string[] {
  const machine = {
    // Without auto-kernel-cmdline=off QEMU writes the virtio words last, and init takes no word before them for ours.
    microvm: "microvm,acpi=off,auto-kernel-cmdline=off,memory-backend=memory",
    "nitro-enclave":
      "nitro-enclave,acpi=off,auto-kernel-cmdline=off,memory-backend=memory,vsock=vsock," +
      `id=${plan.id},parent-id=${plan.instanceId}${parentRole(plan)}`,
  }[plan.machine];
  const images =
    plan.machine === "microvm"
      ? ["-kernel", inherited(DESCRIPTOR.kernel), "-initrd", inherited(DESCRIPTOR.initramfs)]
      : ["-kernel", inherited(DESCRIPTOR.kernel)];
  const device =
    plan.machine === "microvm"
      ? ["-device", "vhost-user-vsock-device,chardev=vsock,bus=virtio-mmio-bus.0"]
      : [];
  return [
    ...plan.firmware.flatMap((folder) => ["-L", folder]),
    ...["-M", machine],
    ...["-accel", plan.accelerator, "-cpu", CPU_MODEL[plan.accelerator]],
    ...["-m", `${plan.memory}B`, "-smp", String(plan.cpus)],
    // vhost-user: the backend maps the guest's memory.
    ...["-object", `memory-backend-memfd,id=memory,size=${plan.memory}B,share=on`],
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"],
    ...["-chardev", `socket,id=vsock,fd=${DESCRIPTOR.vsock}`],
    ...device,
    ...images,
    ...["-append", kernelCmdline(plan)],
  ];
}

/** A comma in a value is written twice (QEMU, "Standard options"); names of IAM roles may have one. */
function parentRole({ roleArn }: QemuPlan): string {
  return roleArn === undefined ? "" : `,parent-role=${roleArn.replaceAll(",", ",,")}`;
}

function inherited(descriptor: number): string {
  return `/proc/self/fd/${descriptor}`;
}

/** The EIF's cmdline, then what the hypervisor appends, then the words that only an emulator needs. */
function kernelCmdline(plan: QemuPlan): string {
  const measured = plan.machine === "microvm" ? [plan.cmdline] : [];
  return [...measured, ...VIRTIO_MMIO[plan.machine], ...tailWords(plan)].join(" ");
}

function tailWords({ machine, accelerator, debug }: QemuPlan): string[] {
  return [
    // microvm has no keyboard controller: reboot=k would fall through and boot a second time.
    "reboot=t",
    "panic=-1",
    // TCG on a busy host: the kernel's calibration against the PIT fails and the boot hangs; its watchdog blames the TSC
    // for late timer ticks and leaves the guest a clock of 100 Hz.
    ...(accelerator === "tcg" ? [`tsc_early_khz=${hostTscKhz()}`, "tsc=reliable"] : []),
    ...(debug ? [TAIL_DEBUG_MODE] : []),
    ...(machine === "microvm" ? [TAIL_EMULATED_NSM] : []),
  ];
}

/** KVM counts only with hardware virtualization behind it: a nested PVM has /dev/kvm and boots no stock kernel. */
export function detectAccelerator(cpuinfo = readText("/proc/cpuinfo"), device = "/dev/kvm"): Accelerator {
  if (!/^flags\s*:.*\b(vmx|svm)\b/m.test(cpuinfo)) return "tcg";
  return isAccessible(device, constants.R_OK | constants.W_OK) ? "kvm" : "tcg";
}

/** TCG's guest reads the host's own counter on x86; elsewhere QEMU counts nanoseconds (cpu_get_host_ticks). */
const NANOSECOND_TICKS_KHZ = 1_000_000;

/**
 * The host's TSC frequency, kHz. "cpu MHz" is the momentary clock on machines that scale it, so the nominal one is
 * asked for first: ACPI CPPC (MHz), intel_pstate (kHz), then Intel's model name.
 */
export function hostTscKhz(read: (path: string) => string = readText): number {
  const cpu = "/sys/devices/system/cpu/cpu0";
  const cpuinfo = read("/proc/cpuinfo");
  const candidates = [
    Number(read(`${cpu}/acpi_cppc/nominal_freq`)) * 1000,
    Number(read(`${cpu}/cpufreq/base_frequency`)),
    Number(/^model name\s*:.*@ ([\d.]+)GHz/m.exec(cpuinfo)?.[1]) * 1e6,
    Number(/^cpu MHz\s*:\s*([\d.]+)/m.exec(cpuinfo)?.[1]) * 1000,
  ];
  return Math.round(candidates.find((khz) => khz > 0) ?? NANOSECOND_TICKS_KHZ);
}

/** The QEMU program's path. Throws E_QEMU_MISSING, with the command that installs it. */
export function findQemu(program = PROGRAM, path = process.env.PATH ?? ""): string {
  const places = program.includes("/")
    ? [program]
    : path.split(delimiter).map((folder) => join(folder, program));
  const found = places.find((place) => isAccessible(place, constants.X_OK));
  if (found !== undefined) return found;
  const where = program.includes("/") ? program : `${program} in PATH`;
  throw new CloisterError("E_QEMU_MISSING", `${where}: got nothing, expected a program`, {
    fix: `Install QEMU: ${installCommand()}`,
  });
}

const INSTALL_COMMANDS: Readonly<Record<string, string>> = {
  debian: "sudo apt-get install -y qemu-system-x86",
  fedora: "sudo dnf install -y qemu-system-x86-core",
  arch: "sudo pacman -S --noconfirm qemu-system-x86",
  alpine: "sudo apk add qemu-system-x86_64",
  suse: "sudo zypper install -y qemu-x86",
  nixos: "nix-env -iA nixos.qemu",
};

/** os-release(5): ID, then the distributions it is like. */
export function installCommand(osRelease = readText("/etc/os-release")): string {
  const values = [...osRelease.matchAll(/^(?:ID|ID_LIKE)="?([^"\n]*)"?$/gm)].map((match) => match[1] ?? "");
  for (const name of values.join(" ").split(" ")) {
    const command = INSTALL_COMMANDS[name];
    if (command !== undefined) return command;
  }
  return INSTALL_COMMANDS.debian as string;
}

function isAccessible(path: string, mode: number): boolean {
  try {
    accessSync(path, mode);
    return true;
  } catch {
    return false;
  }
}

/** A file's text; empty where this kernel or distribution does not have it. */
function readText(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return "";
  }
}
