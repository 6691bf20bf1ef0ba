/**
 * The boot ABI: every number the enclave and its parent agree on. Nothing else in the code base spells one of these.
 *
 * Sources: nitro-cli `eif_loader/src/lib.rs` (heartbeat), vsock(7) (CIDs), nitro-cli `enclave_proc/utils.rs` (console).
 */

/** vsock context ids. The parent instance is 3 on Nitro; 2 is Linux's VMADDR_CID_HOST and reaches it too. */
export const CID_HYPERVISOR = 0;
export const CID_LOCAL = 1;
export const CID_HOST = 2;
export const CID_PARENT = 3;
/** VMADDR_CID_ANY: bind to whatever CID this machine has. */
export const CID_ANY = 0xffff_ffff;
/** The first CID that an emulated enclave gets when the launcher asks for any; AWS's examples show 16 and up. */
export const CID_FIRST_ENCLAVE = 16;

/** Enclave → parent, once at boot: HEARTBEAT_BYTE out, the same byte back. */
export const PORT_HEARTBEAT = 9000;
export const HEARTBEAT_BYTE = 0xb7;
/** Enclave → parent: the control channel (see control.ts). An absent parent is no error. */
export const PORT_CONTROL = 9001;
/** Enclave → parent: outbound connections. */
export const PORT_EGRESS = 9002;
/** Enclave → parent: the emulator's NSM, only where there is no /dev/nsm. */
export const PORT_NSM = 9003;
/**
 * Parent → enclave, in images that were built for development alone: the development channel (see development.ts), and the
 * inspector of the app's Node. Above every TCP port, so that no server of the app has them.
 */
export const PORT_DEVELOPMENT = 100_001;
export const PORT_INSPECTOR = 100_002;
/** Parent → CID_HYPERVISOR, port CONSOLE_PORT_BASE + enclave CID: serial console, debug mode only. */
export const CONSOLE_PORT_BASE = 10_000;

/** Offset of the EIF in enclave memory, bytes; what NE_GET_IMAGE_LOAD_INFO answers. */
export const EIF_LOAD_OFFSET = 0x80_0000;
/** The driver's smallest enclave, bytes (NE_ERR_ENCLAVE_MEM_MIN_SIZE). */
export const ENCLAVE_MEMORY_MIN = 64 * 1024 * 1024;

/**
 * A payload of at most this many bytes fits one linear packet buffer with its 44-byte header; larger ones are
 * split by guests that carry Linux 6693731487a8 into several descriptors, which some hypervisors corrupt.
 */
export const VSOCK_WRITE_MAX = 31 * 1024;

/** nitro-cli's x86_64 cmdline with panic=1 (a crashed enclave must not linger) and room for the whole ramdisk. */
export const CMDLINE_X86_64 =
  "reboot=k panic=1 pci=off nomodules console=ttyS0 i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd " +
  "random.trust_cpu=on rootfstype=ramfs";

/**
 * Words of the unmeasured cmdline tail that only an emulator can append: the real hypervisor adds
 * `virtio_mmio.device=` and nothing else. init honours them only after the first `virtio_mmio.device=` word.
 */
export const TAIL_DEBUG_MODE = "cloister.debug=1";
export const TAIL_EMULATED_NSM = "cloister.nsm=vsock";

export type Arch = "x86_64" | "aarch64";
