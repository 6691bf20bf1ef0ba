/** `cloister doctor` on copies of machines: what is read, what is found, and the command that mends it. */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { checkLaptop, type LaptopOptions } from "../../cli/laptop.ts";
import { checkParent, type ParentOptions } from "../../launcher/doctor.ts";
import { type Finding, parseCpuList, Tree } from "../../launcher/finding.ts";

const root = mkdtempSync(join(tmpdir(), "cloister-doctor-"));
afterAll(() => rmSync(root, { recursive: true }));
let count = 0;

type Files = Readonly<Record<string, string | undefined>>;

/** A machine of these files; a name that ends with `@` is a dangling link, with `/` a folder. */
function machine(files: Files): Tree {
  const folder = join(root, String(count++));
  for (const [path, content] of Object.entries(files)) {
    const place = join(folder, path);
    if (content === undefined) continue;
    mkdirSync(dirname(place), { recursive: true });
    if (path.endsWith("/")) mkdirSync(place, { recursive: true });
    else if (path.endsWith("@")) symlinkSync("/nowhere", place.slice(0, -1));
    else writeFileSync(place, content);
  }
  return new Tree(folder);
}

const POOLS = "/sys/kernel/mm/hugepages";
const pool = (folder: string, kib: number, total: number, free: number, reserved = 0): Files => ({
  [`${folder}/hugepages-${kib}kB/nr_hugepages`]: `${total}\n`,
  [`${folder}/hugepages-${kib}kB/free_hugepages`]: `${free}\n`,
  [`${folder}/hugepages-${kib}kB/resv_hugepages`]: `${reserved}\n`,
});

/** proc(5): free blocks of order 0 to 10. */
const buddies = (order9: number, order10: number, order0 = 100_000) =>
  `Node 0, zone      DMA      1      1      1      1      1      1      1      1      1      1      900
Node 0, zone   Normal ${order0} 0 0 0 0 0 0 0 0 ${order9} ${order10}
`;

/** An m5.2xlarge as aws-nitro-enclaves-cli leaves it. */
const PARENT: Files = {
  "/sys/devices/virtual/dmi/id/sys_vendor": "Amazon EC2\n",
  "/sys/bus/pci/devices/0000:00:02.0/vendor": "0x1d0f\n",
  "/sys/bus/pci/devices/0000:00:02.0/device": "0xe4c1\n",
  "/sys/module/nitro_enclaves/parameters/ne_cpus": "1,5\n",
  "/dev/nitro_enclaves": "",
  "/dev/vsock": "",
  "/sys/devices/system/node/node0/": "",
  "/sys/devices/system/cpu/smt/control": "on\n",
  ...pool(POOLS, 2048, 512, 512),
  ...pool(POOLS, 1_048_576, 0, 0),
  "/proc/buddyinfo": buddies(100, 100),
  "/etc/group": "root:x:0:\nne:x:993:ec2-user\n",
  "/etc/nitro_enclaves/allocator.yaml": "---\nmemory_mib: 1024\n# CPUs\ncpu_count: 2\n",
  "/run/systemd/units/invocation:nitro-enclaves-allocator.service@": "",
  "/run/chrony/chronyd.pid": "1\n",
};
const NOW = Date.UTC(2026, 10, 21);
const NEED = { memory: 512 << 20, cpus: 2 };

function check(changes: Files = {}, options: Partial<ParentOptions> = {}): Finding[] {
  const user = { uid: 0, gids: [0] };
  return checkParent({
    tree: machine({ ...PARENT, ...changes }),
    user,
    now: NOW,
    need: NEED,
    usedCpus: 0,
    ...options,
  });
}

const troubles = (findings: readonly Finding[]) => findings.filter(({ status }) => status !== "ok");

describe("a parent", () => {
  test("that is well configured has nothing to mend", () => {
    const findings = check();
    expect(troubles(findings)).toEqual([]);
    expect(findings.map(({ check, found }) => `${check}: ${found}`)).toEqual([
      "device: /dev/nitro_enclaves may be read and written",
      "allocator: active: 1024 MiB, 2 CPUs",
      "CPU pool: 2 CPUs (1,5), 0 of them in use",
      "NUMA: one node",
      "huge pages: free: 0 of 1 GiB, 512 of 2 MiB",
      "fragmentation: free memory in one piece for 300 more pages of 2 MiB, of 495",
      "vsock: /dev/vsock",
      "clock: set by chronyd",
    ]);
  });

  const NO_DEVICE = {
    "/dev/nitro_enclaves": undefined,
    "/sys/module/nitro_enclaves/parameters/ne_cpus": undefined,
  };

  test.each<
    [string, Files, Partial<ParentOptions>, [status: string, check: string, found: RegExp, fix: RegExp][]]
  >([
    [
      "the driver was not loaded",
      NO_DEVICE,
      {},
      [
        ["problem", "driver", /not loaded/, /sudo modprobe nitro_enclaves/],
        ["problem", "device", /no \/dev\/nitro_enclaves/, /sudo modprobe nitro_enclaves/],
        ["warning", "allocator", /0 CPUs in the pool/, /systemctl restart nitro-enclaves-allocator/],
        ["problem", "CPU pool", /no CPU/, /cpu_count to 2/],
      ],
    ],
    [
      "the instance was started without enclaves",
      { ...NO_DEVICE, "/sys/bus/pci/devices/0000:00:02.0/device": "0xec20" },
      {},
      [
        ["problem", "instance", /EC2 instance without them/, /aws ec2 modify-instance-attribute/],
        ["problem", "driver", /./, /modprobe/],
        ["problem", "device", /./, /modprobe/],
        ["warning", "allocator", /./, /./],
        ["problem", "CPU pool", /./, /./],
      ],
    ],
    [
      "this user is not in the group",
      {},
      { user: { uid: 1000, gids: [1000] } },
      [["problem", "device", /mode 644, owner \d+, group \d+/, /usermod -aG|groupadd/]],
    ],
    [
      "the pool is empty",
      { "/sys/module/nitro_enclaves/parameters/ne_cpus": "\n" },
      {},
      [
        ["warning", "allocator", /0 CPUs in the pool/, /restart/],
        ["problem", "CPU pool", /no CPU/, /Set cpu_count to 2 in \/etc\/nitro_enclaves\/allocator\.yaml/],
      ],
    ],
    [
      "other enclaves have the CPUs",
      {},
      { usedCpus: 2 },
      [["problem", "CPU pool", /2 CPUs \(1,5\), 2 of them in use/, /cpu_count to 4/]],
    ],
    [
      "half a core is asked for",
      {
        "/sys/module/nitro_enclaves/parameters/ne_cpus": "1-3,5-7",
        "/etc/nitro_enclaves/allocator.yaml": "cpu_pool: 1-3,5-7",
      },
      { need: { ...NEED, cpus: 3 } },
      [["problem", "siblings", /3 CPUs wanted/, /--cpus 4/]],
    ],
    [
      "pages are in use, and memory has room",
      pool(POOLS, 2048, 512, 300, 100),
      {},
      [["problem", "huge pages", /200 of 2 MiB/, /echo \d+ \| sudo tee/]],
    ],
    [
      "pages are in use, and memory is fragmented",
      { ...pool(POOLS, 2048, 512, 0), "/proc/buddyinfo": buddies(3, 1) },
      {},
      [
        ["problem", "huge pages", /0 of 2 MiB/, /sudo tee/],
        ["warning", "fragmentation", /for 5 more pages of 2 MiB, of 200/, /hugepagesz=2M hugepages=256/],
      ],
    ],
    [
      "a kernel without huge pages",
      {
        ...Object.fromEntries(
          Object.keys(PARENT)
            .filter((path) => path.startsWith(POOLS))
            .map((path) => [path, undefined]),
        ),
      },
      {},
      [["problem", "huge pages", /none/, /CONFIG_HUGETLBFS/]],
    ],
    [
      "the allocator is not active",
      { "/run/systemd/units/invocation:nitro-enclaves-allocator.service@": undefined },
      {},
      [["warning", "allocator", /not active/, /systemctl enable --now/]],
    ],
    [
      "the allocator's configuration is newer than what it did",
      { "/etc/nitro_enclaves/allocator.yaml": "memory_mib: 512\ncpu_count: 4\n" },
      {},
      [["warning", "allocator", /2 CPUs in the pool/, /systemctl restart/]],
    ],
    [
      "no vsock",
      { "/dev/vsock": undefined },
      {},
      [["problem", "vsock", /no \/dev\/vsock/, /modprobe vmw_vsock/]],
    ],
    [
      "nothing sets the clock",
      { "/run/chrony/chronyd.pid": undefined },
      {},
      [["warning", "clock", /nothing/, /chronyd/]],
    ],
    ["the clock is at its beginning", {}, { now: 0 }, [["problem", "clock", /1970-01-01/, /chronyd/]]],
  ])("%s", (_, changes, options, expected) => {
    const found = troubles(check(changes, options));
    expect(found.map(({ status, check }) => [status, check])).toEqual(
      expected.map(([status, check]) => [status, check]),
    );
    for (const [index, [, , text, fix]] of expected.entries()) {
      expect(found[index]?.found).toMatch(text);
      expect(found[index]?.fix).toMatch(fix);
    }
  });

  test("of two NUMA nodes counts the pool's pages only", () => {
    const nodes = {
      "/sys/devices/system/node/node0/cpu0/": "",
      "/sys/devices/system/node/node1/cpu1/": "",
      ...pool("/sys/devices/system/node/node0/hugepages", 2048, 512, 512),
      ...pool("/sys/devices/system/node/node1/hugepages", 2048, 512, 8),
      "/proc/buddyinfo":
        "Node 0, zone Normal 0 0 0 0 0 0 0 0 0 900 0\nNode 1, zone Normal 0 0 0 0 0 0 0 0 0 1 0\n",
    };
    const found = check(nodes);
    expect(found.find(({ check }) => check === "NUMA")?.found).toBe("CPU pool and memory on node 1 of 2");
    expect(troubles(found).map(({ check, found }) => `${check}: ${found}`)).toEqual([
      "huge pages: free: 8 of 2 MiB",
      "fragmentation: free memory in one piece for 1 more pages of 2 MiB, of 1",
    ]);
    const homeless = check({ ...nodes, "/sys/module/nitro_enclaves/parameters/ne_cpus": "7" });
    expect(homeless.find(({ check }) => check === "NUMA")).toMatchObject({ status: "warning" });
  });

  test("a machine that is none says so once, with the way out", () => {
    const found = checkParent({ tree: machine({}), user: { uid: 0, gids: [] }, now: NOW, usedCpus: 0 });
    expect(found[0]).toMatchObject({
      check: "instance",
      status: "problem",
      fix: "Run enclaves here with --emulator.",
    });
  });

  test("the device's group may open it", () => {
    const tree = machine(PARENT);
    chmodSync(tree.path("/dev/nitro_enclaves"), 0o660);
    const { gid = 0 } = tree.stat("/dev/nitro_enclaves") ?? {};
    const device = (gids: number[], uid = 1000) =>
      checkParent({ tree, user: { uid, gids }, now: NOW, usedCpus: 0 }).find(
        ({ check }) => check === "device",
      )?.status;
    expect([device([gid]), device([gid + 1]), device([], 0)]).toEqual(["ok", "problem", "ok"]);
  });
});

describe("a laptop", () => {
  const LAPTOP: Files = {
    "/proc/cpuinfo": "processor : 0\nflags\t\t: fpu vmx sse\n",
    "/dev/kvm": "",
    "/proc/meminfo": "MemTotal: 16000000 kB\nMemAvailable:    8000000 kB\n",
    ...pool(POOLS, 2048, 512, 512),
    "/proc/sys/kernel/seccomp/actions_avail":
      "kill_process kill_thread trap errno user_notif trace log allow",
    "/proc/sys/kernel/osrelease": "6.1.0-18-amd64",
  };
  const programs = join(root, "programs");
  mkdirSync(programs);
  writeFileSync(join(programs, "qemu-system-x86_64"), "");
  chmodSync(join(programs, "qemu-system-x86_64"), 0o755);
  const answers: Record<string, string> = {
    "--version": "QEMU emulator version 7.2.19 (Debian 1:7.2+dfsg-7+deb12u16)\n",
    "-M help": "Supported machines are:\nmicrovm              microvm (i386)\npc\n",
    "-M microvm -device help": 'name "vhost-user-vsock-device", bus virtio-bus\n',
  };

  async function look(changes: Files = {}, options: Partial<LaptopOptions> = {}): Promise<Finding[]> {
    return checkLaptop({
      tree: machine({ ...LAPTOP, ...changes }),
      path: programs,
      run: async (_, args) => answers[args.join(" ")] ?? "",
      memory: 512 << 20,
      mayUse: () => true,
      ...options,
    });
  }

  test("that has all of it is ready", async () => {
    const found = await look();
    expect(troubles(found)).toEqual([]);
    expect(found.map(({ check }) => check)).toEqual([
      "QEMU",
      "acceleration",
      "memory",
      "huge pages",
      "seccomp",
    ]);
  });

  const saying = (command: string, answer: string) => ({
    run: async (_: string, args: readonly string[]) =>
      ({ ...answers, [command]: answer })[args.join(" ")] ?? "",
  });

  test.each<[string, Files, Partial<LaptopOptions>, status: string, found: RegExp, fix: RegExp]>([
    ["no QEMU", {}, { path: "/nowhere" }, "problem", /none/, /install/],
    ["an old QEMU", {}, saying("--version", "QEMU emulator version 6.2.0"), "problem", /6\.2/, /newer QEMU/],
    ["a QEMU that tells no version", {}, saying("--version", "hello"), "problem", /\?\.\?/, /newer QEMU/],
    ["a QEMU without microvm", {}, saying("-M help", "pc\nmicrovmx\n"), "problem", /microvm/, /newer QEMU/],
    [
      "a QEMU without the device",
      {},
      saying("-M microvm -device help", ""),
      "problem",
      /vhost-user-vsock/,
      /newer/,
    ],
    [
      "a QEMU that fails",
      {},
      { run: () => Promise.reject(new Error("spawn EACCES\nmore")) },
      "problem",
      /EACCES$/,
      /by hand/,
    ],
    ["no virtualization", { "/proc/cpuinfo": "flags : fpu\n" }, {}, "warning", /no vmx or svm/, /firmware/],
    ["no KVM", { "/dev/kvm": undefined }, {}, "warning", /no \/dev\/kvm/, /modprobe/],
    ["KVM of others", {}, { mayUse: () => false }, "warning", /not this user's/, /usermod -aG kvm/],
    ["little memory", { "/proc/meminfo": "MemAvailable: 100 kB" }, {}, "problem", /available/, /--memory/],
    ["no huge pages", pool(POOLS, 2048, 0, 0), {}, "warning", /0 of 2 MiB/, /tee/],
    ["an old kernel", { "/proc/sys/kernel/osrelease": "5.13.0" }, {}, "warning", /5\.13/, /newer kernel/],
    [
      "no user notification",
      { "/proc/sys/kernel/seccomp/actions_avail": "allow" },
      {},
      "warning",
      /without/,
      /newer kernel/,
    ],
  ])("%s", async (_, changes, options, status, text, fix) => {
    const found = troubles(await look(changes, options));
    expect(found).toEqual([
      {
        check: expect.any(String),
        status,
        found: expect.stringMatching(text),
        expected: expect.any(String),
        fix: expect.stringMatching(fix),
      },
    ]);
  });
});

test("CPU lists", () => {
  expect(parseCpuList("1-3,8")).toEqual([1, 2, 3, 8]);
  expect(parseCpuList("")).toEqual([]);
  expect(parseCpuList("5\n")).toEqual([5]);
});
