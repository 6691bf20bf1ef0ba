/** QEMU's command line, and what it depends on: the machine, the host's clock, the distribution. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import {
  detectAccelerator,
  findQemu,
  hostTscKhz,
  installCommand,
  type QemuPlan,
  qemuArguments,
} from "../../emulator/qemu.ts";
import { TAIL_DEBUG_MODE, TAIL_EMULATED_NSM } from "../../format/abi.ts";
import { isDebugMode, tailWords } from "../../init/mode.ts";

const folder = mkdtempSync(join(tmpdir(), "cloister-qemu-"));
afterAll(() => rmSync(folder, { recursive: true }));

const plan: QemuPlan = {
  machine: "microvm",
  accelerator: "tcg",
  firmware: [],
  memory: 192 << 20,
  cpus: 2,
  cmdline: "reboot=k panic=1 console=ttyS0",
  debug: false,
  id: "i-0-enc1",
  instanceId: "i-0",
  roleArn: undefined,
};

function option(args: readonly string[], name: string): string {
  return args[args.indexOf(name) + 1] ?? "";
}

describe("kernel command line", () => {
  test("the image's own, then the hypervisor's, then ours", () => {
    const words = option(qemuArguments(plan), "-append").split(" ");
    expect(words.slice(0, 4)).toEqual([
      "reboot=k",
      "panic=1",
      "console=ttyS0",
      "virtio_mmio.device=512@0xfeb00000:5",
    ]);
    const khz = `tsc_early_khz=${hostTscKhz()}`;
    expect(words.slice(4)).toEqual(["reboot=t", "panic=-1", khz, "tsc=reliable", TAIL_EMULATED_NSM]);
  });

  test.each(["microvm", "nitro-enclave"] as const)(
    "%s: init finds the debug word, and only in debug mode",
    (machine) => {
      const [production, debug] = [false, true].map((debug) =>
        option(qemuArguments({ ...plan, machine, debug }), "-append"),
      );
      expect(isDebugMode(production ?? "", undefined)).toBe(false);
      expect(isDebugMode(debug ?? "", undefined)).toBe(true);
      expect(tailWords(debug ?? "")).toContain(TAIL_DEBUG_MODE);
    },
  );

  test("QEMU appends no words of its own after ours", () => {
    for (const machine of ["microvm", "nitro-enclave"] as const) {
      expect(option(qemuArguments({ ...plan, machine }), "-M")).toContain("auto-kernel-cmdline=off");
    }
  });

  test("the emulated NSM is named where QEMU has none of its own", () => {
    const words = (machine: "microvm" | "nitro-enclave") =>
      tailWords(option(qemuArguments({ ...plan, machine }), "-append"));
    expect(words("microvm")).toContain(TAIL_EMULATED_NSM);
    expect(words("nitro-enclave")).not.toContain(TAIL_EMULATED_NSM);
  });

  test("KVM has a clock of its own", () => {
    const args = qemuArguments({ ...plan, accelerator: "kvm" });
    expect(option(args, "-append")).not.toContain("tsc");
    expect(option(args, "-cpu")).toBe("host");
  });
});

test("memory is shared with the vsock device, and as large as the regions", () => {
  const args = qemuArguments(plan);
  expect(option(args, "-m")).toBe("201326592B");
  expect(option(args, "-object")).toBe("memory-backend-memfd,id=memory,size=201326592B,share=on");
});

test("images are inherited descriptors; nitro-enclave takes the EIF alone", () => {
  const args = qemuArguments(plan);
  expect(option(args, "-kernel")).toBe("/proc/self/fd/4");
  expect(option(args, "-initrd")).toBe("/proc/self/fd/5");
  expect(qemuArguments({ ...plan, machine: "nitro-enclave" })).not.toContain("-initrd");
});

test("nitro-enclave's NSM hears of role and instance, whatever is in the role's name", () => {
  const machine = "nitro-enclave";
  const roleArn = "arn:aws:iam::1:role/a,b=c";
  const words = option(qemuArguments({ ...plan, machine, roleArn }), "-M");
  expect(words).toMatch(/,id=i-0-enc1,parent-id=i-0,parent-role=arn:aws:iam::1:role\/a,,b=c$/);
  expect(option(qemuArguments({ ...plan, machine }), "-M")).not.toContain("parent-role");
});

describe("accelerator", () => {
  const device = join(folder, "kvm");
  writeFileSync(device, "");
  const flags = (extra: string) => `processor\t: 0\nflags\t\t: fpu vme ${extra} sse2\n`;

  test.each([
    ["hardware virtualization of Intel", flags("vmx"), device, "kvm"],
    ["hardware virtualization of AMD", flags("svm"), device, "kvm"],
    ["a /dev/kvm without it (nested PVM)", flags("hypervisor"), device, "tcg"],
    ["a flag that only looks like it", flags("vmxfoo"), device, "tcg"],
    ["no /dev/kvm", flags("vmx"), join(folder, "absent"), "tcg"],
  ])("%s", (_name, cpuinfo, path, expected) => {
    expect(detectAccelerator(cpuinfo, path)).toBe(expected);
  });
});

describe("TSC frequency", () => {
  const scaled = "model name\t: Intel(R) Core(TM) i7 CPU @ 2.60GHz\ncpu MHz\t\t: 4200.123\n";
  const sysfs = "/sys/devices/system/cpu/cpu0";
  test.each([
    [
      "CPPC's nominal clock first",
      { [`${sysfs}/acpi_cppc/nominal_freq`]: "3800", "/proc/cpuinfo": scaled },
      3_800_000,
    ],
    [
      "intel_pstate's base clock",
      { [`${sysfs}/cpufreq/base_frequency`]: "2592000", "/proc/cpuinfo": scaled },
      2_592_000,
    ],
    ["the model name before the momentary clock", { "/proc/cpuinfo": scaled }, 2_600_000],
    ["the clock of a VM", { "/proc/cpuinfo": "model name\t: AMD EPYC\ncpu MHz\t\t: 2299.998\n" }, 2_299_998],
    ["nanoseconds where there is no TSC", { "/proc/cpuinfo": "processor\t: 0\n" }, 1_000_000],
  ])("%s", (_name, files: Readonly<Record<string, string>>, khz) => {
    expect(hostTscKhz((path) => files[path] ?? "")).toBe(khz);
  });
});

describe("program", () => {
  test("is found on PATH, and only where it can be run", () => {
    const [first, second] = [join(folder, "a"), join(folder, "b")];
    writeFileSync(join(folder, "qemu-x"), "");
    expect(() => findQemu("qemu-x", `${first}:${folder}`)).toThrow(/qemu-x in PATH: got nothing/);
    chmodSync(join(folder, "qemu-x"), 0o755);
    expect(findQemu("qemu-x", `${second}:${folder}`)).toBe(join(folder, "qemu-x"));
    expect(findQemu(join(folder, "qemu-x"), "")).toBe(join(folder, "qemu-x"));
  });

  test("its absence names the one command that installs it", () => {
    expect(() => findQemu(join(folder, "absent"))).toThrow(
      expect.objectContaining({ code: "E_QEMU_MISSING", fix: expect.stringContaining(installCommand()) }),
    );
  });

  test.each([
    ['ID=ubuntu\nID_LIKE=debian\nNAME="Ubuntu"\n', "sudo apt-get install -y qemu-system-x86"],
    ["ID=debian\n", "sudo apt-get install -y qemu-system-x86"],
    ['ID="fedora"\n', "sudo dnf install -y qemu-system-x86-core"],
    ['NAME=x\nID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "sudo zypper install -y qemu-x86"],
    ["", "sudo apt-get install -y qemu-system-x86"],
  ])("%j", (osRelease, command) => {
    expect(installCommand(osRelease)).toBe(command);
  });
});
