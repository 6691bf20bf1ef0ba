/**
 * What the Nitro Enclaves driver refuses: one entry for each of its error numbers, named as in
 * linux/uapi/linux/nitro_enclaves.h (NE_ERR_*). Part of the catalogue in errors.ts.
 */
const SHOW_POOL = "`cat /sys/module/nitro_enclaves/parameters/ne_cpus` shows the pool";
const ENLARGE_POOL =
  "raise cpu_count in /etc/nitro_enclaves/allocator.yaml and run `sudo systemctl restart nitro-enclaves-allocator`";
const ENLARGE_MEMORY =
  "raise memory_mib in /etc/nitro_enclaves/allocator.yaml and run `sudo systemctl restart nitro-enclaves-allocator`";
const REPORT =
  "Report it with the command line: cloister asked the driver for something that it should not have.";

export const refusals = {
  E_NE_VCPU_ALREADY_USED: {
    cause: "The same CPU was given to the enclave twice.",
    fix: "Name each CPU once, or give a number of CPUs instead.",
  },
  E_NE_VCPU_NOT_IN_CPU_POOL: {
    cause: "A CPU for the enclave is not in the CPU pool, or another enclave has its core.",
    fix: `Give a number of CPUs instead of their ids; ${SHOW_POOL}.`,
  },
  E_NE_VCPU_INVALID_CPU_CORE: {
    cause: "A CPU for the enclave belongs to a core that the parent instance does not have.",
    fix: `Give a number of CPUs instead of their ids; ${SHOW_POOL}.`,
  },
  E_NE_INVALID_MEM_REGION_SIZE: {
    cause: "A memory region of the enclave is not a multiple of 2 MiB.",
    fix: REPORT,
  },
  E_NE_INVALID_MEM_REGION_ADDR: {
    cause: "A memory region of the enclave is not memory of this process.",
    fix: REPORT,
  },
  E_NE_UNALIGNED_MEM_REGION_ADDR: {
    cause: "A memory region of the enclave does not start at a multiple of 2 MiB.",
    fix: REPORT,
  },
  E_NE_MEM_REGION_ALREADY_USED: {
    cause: "Two memory regions of the enclave overlap.",
    fix: REPORT,
  },
  E_NE_MEM_NOT_HUGE_PAGE: {
    cause: "Enclave memory must be huge pages, and this is not.",
    fix: `Reserve huge pages: ${ENLARGE_MEMORY}.`,
  },
  E_NE_MEM_DIFFERENT_NUMA_NODE: {
    cause: "The enclave's memory and the CPU pool are on different NUMA nodes.",
    fix: "Run `sudo systemctl restart nitro-enclaves-allocator`: it reserves both on one node.",
  },
  E_NE_MEM_MAX_REGIONS: {
    cause:
      "The enclave's memory lies in more pieces than the hypervisor takes: the huge pages are small and scattered.",
    fix: "Reserve larger pages when the parent boots: `hugepagesz=1G hugepages=N` on its kernel command line.",
  },
  E_NE_NO_MEM_REGIONS_ADDED: {
    cause: "The enclave was started without memory.",
    fix: REPORT,
  },
  E_NE_NO_VCPUS_ADDED: {
    cause: "The enclave was started without a CPU.",
    fix: "Ask for at least one CPU, or two where a core has two threads.",
  },
  E_NE_ENCLAVE_MEM_MIN_SIZE: {
    cause: "The enclave has less memory than the driver's minimum of 64 MiB.",
    fix: "Ask for 64 MiB or more with --memory.",
  },
  E_NE_FULL_CORES_NOT_USED: {
    cause: "The enclave has one thread of a CPU core and not the other: cores are given whole.",
    fix: "Ask for an even number of CPUs with --cpus.",
  },
  E_NE_NOT_IN_INIT_STATE: {
    cause: "The enclave was already started.",
    fix: REPORT,
  },
  E_NE_INVALID_VCPU: {
    cause: "A CPU for the enclave has a number that the parent instance does not have.",
    fix: `Give a number of CPUs instead of their ids; ${SHOW_POOL}.`,
  },
  E_NE_NO_CPUS_AVAIL_IN_POOL: {
    cause: "The CPU pool is empty, or other enclaves have all of it.",
    fix: `Terminate another enclave, or ${ENLARGE_POOL}.`,
  },
  E_NE_INVALID_PAGE_SIZE: {
    cause:
      "The enclave's memory has pages that are no multiple of 2 MiB, or starts in the middle of a larger page.",
    fix: REPORT,
  },
  E_NE_INVALID_FLAG_VALUE: {
    cause: "The driver does not know a flag that the enclave was started with: it is older than cloister.",
    fix: "Update the parent instance's kernel.",
  },
  E_NE_INVALID_ENCLAVE_CID: {
    cause: "The enclave's CID is reserved (0 to 3, 4294967295), or another enclave has it.",
    fix: "Choose another number from 4 on with --cid, or leave it to the hypervisor.",
  },
  E_NE_FAULT: {
    cause: "A memory region of the enclave, or an argument for the driver, is not mapped in this process.",
    fix: REPORT,
  },
  E_NE_INVALID: {
    cause:
      "The hypervisor refused the enclave, and hardware gives no reason. At NE_START_ENCLAVE the image is the usual one: " +
      "damaged, without a kernel, or for another architecture.",
    fix: "Check the image with `cloister describe`; `cloister run --emulator` names what a hypervisor finds wrong in it.",
  },
  E_NE_OTHER_PROCESS: {
    cause: "The enclave was created by another process: the driver serves only the one that created it.",
    fix: REPORT,
  },
  E_NE_DESCRIPTORS: {
    cause: "This process, or the whole system, has no file descriptors left.",
    fix: "Raise the limit: `ulimit -n 4096`; `cat /proc/sys/fs/file-nr` shows the system's.",
  },
  E_NE_NO_MEMORY: {
    cause: "The parent's kernel has no memory left for the enclave's bookkeeping, or a region has no page.",
    fix: "Free memory on the parent instance: `free -m` shows what there is.",
  },
  E_NE_UNKNOWN_IOCTL: {
    cause: "The driver does not know this step: it is no Nitro Enclaves driver, or older than Linux 5.10.",
    fix: "Update the parent instance's kernel; `modinfo nitro_enclaves` shows the driver.",
  },
  E_NE_TIMEOUT: {
    cause: "The hypervisor did not answer the driver for 120 s.",
    fix: "Try again; if it stays so, stop and start the parent instance, which moves it to other hardware.",
  },
  E_NE_IOCTL: {
    cause: "The kernel or the hypervisor refused a step of the launch.",
    fix: "Look at the parent's kernel log: `sudo dmesg | grep -i nitro`.",
  },
} as const;
