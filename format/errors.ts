/**
 * The catalogue of errors that users meet. `docs/errors.md` is generated from it; a message names where, what was
 * found and what was expected, the catalogue adds the cause and what to do.
 */
import { denials } from "./denials.ts";
import { departures } from "./departures.ts";
import { exchanges } from "./exchanges.ts";
import { refusals } from "./refusals.ts";
import { verdicts } from "./verdicts.ts";

export { at, CloisterError, type CloisterErrorOptions, mismatch } from "./failure.ts";

export interface ErrorEntry {
  readonly cause: string;
  readonly fix: string;
}

const catalogue = {
  E_USAGE: {
    cause: "The command line has a verb, option or value that cloister does not know.",
    fix: "Run `cloister --help` or `cloister VERB --help`.",
  },
  E_NOT_IN_ENCLAVE: {
    cause: "A function of cloister/runtime was called outside an enclave, where it has nothing to work on.",
    fix: "Run the app with `cloister dev` or `cloister run`; in unit tests, pass the function in and replace it.",
  },
  E_INTERNAL: {
    cause: "cloister itself went wrong: a bug.",
    fix: "Run again with CLOISTER_DEBUG=1 and report the stack trace it prints.",
  },
  E_NO_DEVICE: {
    cause:
      "There is no /dev/nitro_enclaves: this is no EC2 instance that was started with enclaves enabled, or its kernel has " +
      "not loaded the driver.",
    fix:
      "Add --emulator, or run the command under `cloister emulate --`. On an EC2 parent: `sudo modprobe nitro_enclaves`, " +
      "and enable enclaves for the instance.",
  },
  E_DEVICE_ACCESS: {
    cause: "This user may not open /dev/nitro_enclaves, which belongs to root and the group ne.",
    fix: "Join the group and log in again: `sudo usermod -aG ne $USER`.",
  },
  E_DEVICE: {
    cause: "/dev/nitro_enclaves cannot be opened.",
    fix: "Look at the parent's kernel log: `sudo dmesg | grep -i nitro`.",
  },
  E_NO_VSOCK: {
    cause: "This kernel has no AF_VSOCK, or no transport for it: parent and enclave speak over nothing else.",
    fix: "Load it: `sudo modprobe vmw_vsock_virtio_transport`.",
  },
  E_HUGE_PAGES: {
    cause: "Enclave memory is made of huge pages, and too few of them are free.",
    fix: "Reserve more, or give the enclave less memory with --memory.",
  },
  E_INTERRUPTED: {
    cause: "A signal came before the enclave had booted; nothing of it is left.",
    fix: "Run it again and wait for its heartbeat.",
  },
  E_EIF_MAGIC: {
    cause: "The file is not an enclave image: it does not begin with the bytes `.eif`.",
    fix: "Name a file that `cloister build` or nitro-cli wrote.",
  },
  E_EIF_TRUNCATED: {
    cause: "The enclave image ends before its own tables say it does.",
    fix: "Copy or build the file again.",
  },
  E_EIF_CRC: {
    cause: "The enclave image's bytes do not match the checksum in its header: it was damaged or edited.",
    fix: "Copy or build the file again.",
  },
  E_EIF_VERSION: {
    cause: "The enclave image has a format version that no released tool writes.",
    fix: "Build the image again with a current tool; versions 2 to 4 are known.",
  },
  E_EIF_ARCH: {
    cause: "The enclave image was built for another processor architecture.",
    fix: "Build the image for the architecture of the machine that runs it.",
  },
  E_EIF_SECTION_COUNT: {
    cause: "The enclave image says it has fewer or more sections than the format allows.",
    fix: "Build the image again.",
  },
  E_EIF_SECTION_TYPE: {
    cause: "The enclave image has a section of a type that the format does not know.",
    fix: "Build the image again.",
  },
  E_EIF_SECTION_OVERLAP: {
    cause: "Two sections of the enclave image share bytes.",
    fix: "Build the image again.",
  },
  E_EIF_SECTION_SIZE: {
    cause:
      "The enclave image's tables disagree about where sections lie. nitro-cli's sign-eif leaves this behind when it " +
      "signs an image for the second time.",
    fix: "Build the image again and sign it once.",
  },
  E_EIF_CMDLINE: {
    cause: "The enclave image's kernel command line cannot be given to a kernel.",
    fix: "Build the image again with a command line of printable ASCII and reasonable length.",
  },
  E_EIF_SECTIONS: {
    cause: "The enclave image lacks a section it needs, has one too many, or has them in the wrong order.",
    fix: "Build the image again.",
  },
  E_KERNEL: {
    cause: "The file is not a kernel that an enclave of this architecture can boot.",
    fix: "Use a bzImage for x86_64, an uncompressed Image for aarch64.",
  },
  E_QEMU_MISSING: {
    cause: "The emulator boots enclaves in QEMU, and there is none on this machine.",
    fix: "Install the package with qemu-system-x86_64, or run on an EC2 parent instance.",
  },
  E_NOT_READY: {
    cause: "An enclave that a test created did not get ready in time.",
    fix: "Look at what it told (`enclave.story()`); on a slow machine, pass a longer `timeoutMs` to `createEnclave`.",
  },
  E_COMMAND: {
    cause: "The command to run in the emulator is no program.",
    fix: "Name a program of PATH, or its path: `cloister emulate -- ./program`.",
  },
  E_SECCOMP: {
    cause:
      "`cloister emulate` answers system calls of the command by seccomp user notification, and this kernel or container " +
      "does not allow it: it needs Linux 5.14, and no other listener on the same process.",
    fix: "Run it outside the container, or with `docker run --security-opt seccomp=unconfined`.",
  },
  E_DEVELOPMENT_ROOT: {
    cause:
      "The development root, under which emulated enclaves attest, cannot be made, read, or trusted to be private.",
    fix:
      "Make the folder writable and the key private (`chmod 600`), or set XDG_DATA_HOME to a folder of your own; " +
      "a key that is damaged may be removed, and a new root is made.",
  },
  E_EMULATE_ARCH: {
    cause: "`cloister emulate` knows the system calls of x86_64 only.",
    fix: "Run it on an x86_64 machine; `cloister run --emulator` works on others too.",
  },
  E_CPIO: {
    cause: "A ramdisk archive cannot be written or read as a newc cpio archive.",
    fix: "Correct the named entry, or build the ramdisk again.",
  },
  E_CBOR: {
    cause: "A message, document or section is not the CBOR that it must be.",
    fix: "Get the file or message again from its source; if a tool made it, that tool is at fault.",
  },
  E_DER: {
    cause: "A certificate is not the DER that X.509 asks for.",
    fix: "Use an X.509 certificate with an ECDSA key, as PEM.",
  },
  E_COSE: {
    cause: "A signed message is not the COSE_Sign1 that it must be.",
    fix: "Get the file or message again from its source.",
  },
  E_EIF_SIGNATURE: {
    cause: "The enclave image's signature section cannot be read.",
    fix: "Build the image again and sign it once.",
  },
  E_EIF_METADATA: {
    cause: "The enclave image's metadata section is not the JSON that the format asks for.",
    fix: "Build the image again.",
  },
  E_NSM: {
    cause: "A message to or from the Nitro Secure Module is not one of its commands or answers.",
    fix: "Use matching releases of cloister in the image and on the parent.",
  },
  E_CONTROL: {
    cause: "The enclave and its parent do not speak the same control protocol, or one of them misbehaves.",
    fix: "Build the image and run it with the same release of cloister.",
  },
  E_DEVELOPMENT: {
    cause: "The enclave and `cloister dev` do not speak the same protocol on the development channel.",
    fix: "Press r, which builds the image again and starts it in a fresh VM.",
  },
  E_ENCLAVE_JSON: {
    cause: "The enclave's configuration has a missing, unknown or impossible value.",
    fix: "Correct the named value in cloister.config.ts and build again.",
  },
  E_MEMORY_TOO_SMALL: {
    cause: "The image does not fit the enclave's memory.",
    fix: "Give the enclave more memory with --memory.",
  },
  E_MEMORY_UNAVAILABLE: {
    cause: "This machine has not enough free memory for the enclave.",
    fix: "Give the enclave less memory with --memory, or free some.",
  },
  E_EIF_READ: {
    cause: "The enclave image cannot be read.",
    fix: "Check the path and its permissions.",
  },
  E_SOCKET_UNUSABLE: {
    cause:
      "A Unix socket cannot be made at that path: something is there already, or the folder is not writable.",
    fix: "Name a free path of at most 107 bytes in a folder of yours; remove what a killed process left there.",
  },
  E_PORT_TAKEN: {
    cause: "Another program listens on the TCP port of --publish or --health-port.",
    fix: "Name another port, or 0 for any free one.",
  },
  E_PORT_UNUSABLE: {
    cause: "This machine cannot listen on the TCP address of --publish or --health-port.",
    fix: "Name 127.0.0.1 and a port from 1024 on, or run as a user who may use that one.",
  },
  E_ACTIVATION: {
    cause: "systemd passed this process no such socket.",
    fix:
      "Start the unit that `cloister run --systemd` prints, with its .socket unit; FileDescriptorName there is the name " +
      "in `--publish systemd:NAME:PORT`. A detached run gets no sockets.",
  },
  E_PROXY_HEADER: {
    cause:
      "A connection to an enclave that was built with proxyProtocol does not begin with a PROXY protocol v2 header.",
    fix:
      "Connect by `cloister run --publish`, which sends it. Behind another relay, or a load balancer with a header of its " +
      "own, let exactly one of them send it: `--publish …,noproxy`.",
  },
  E_PARENT_PORT_TAKEN: {
    cause: "Another program listens on a vsock port of the parent that enclaves report to.",
    fix: "Stop it: while nitro-cli starts an enclave it holds port 9000.",
  },
  E_HEARTBEAT_TIMEOUT: {
    cause: "The enclave was started but did not report within the time limit.",
    fix: "Run it with --debug and read the console; give it more memory if the kernel ran out of it.",
  },
  E_HEARTBEAT_BYTE: {
    cause: "The enclave reported with another byte than the boot protocol's.",
    fix: "Build the image with an init that writes 0xB7 to CID 3, port 9000.",
  },
  E_ENCLAVE_CRASHED: {
    cause: "The enclave ended without saying why: its kernel or its init failed, or memory ran out.",
    fix: "Run it with --debug and read the console; give it more memory with --memory.",
  },
  E_RUN_DIRECTORY: {
    cause: "The directory in which running enclaves are told of cannot be used.",
    fix: "Name a directory of yours in CLOISTER_RUN_DIR.",
  },
  E_ENCLAVE_NAME: {
    cause: "An enclave's name is a directory's too, so not every character may be in it.",
    fix: "Choose another one with --name.",
  },
  E_NAME_TAKEN: {
    cause: "An enclave of that name is running; names are unique.",
    fix: "Choose another one with --name, or end that one: `cloister stop NAME`.",
  },
  E_NO_ENCLAVE: {
    cause: "No enclave of that name or id is known to this user.",
    fix: "`cloister ps -a` lists them; CLOISTER_RUN_DIR must be the one that they were started with.",
  },
  E_SUPERVISOR_DIED: {
    cause: "The process that held the enclave ended without a word, killed perhaps, and the enclave with it.",
    fix: "Start it again; `journalctl -k | grep -i oom` shows whether memory ran out.",
  },
  E_NOT_DEBUG: {
    cause: "Only enclaves in debug mode have a console.",
    fix: "Start it with --debug, or read the app's own output: `cloister logs NAME`.",
  },
  E_APP_ENDED: {
    cause: "The app ended before it was ready.",
    fix: "Correct what its last words below say.",
  },
  ...denials,
  ...departures,
  ...exchanges,
  ...refusals,
  ...verdicts,
  E_CONFIG: {
    cause: "cloister.config.* or package.json has a field or value that cloister does not know.",
    fix: "Correct the value; every field and its default are in the types of defineConfig.",
  },
  E_TYPES: {
    cause: "The declarations that `cloister types` wrote are not those of the configuration as it is now.",
    fix: "Run `cloister types` and commit what it writes.",
  },
  E_ENTRY: {
    cause: "There is no app here: no such directory or entry module.",
    fix: "Run cloister in the app's folder, or name the module: `cloister build path/to/app.ts`.",
  },
  E_BUNDLE: {
    cause: "The app's source cannot be bundled: a syntax error, or an import of a file that is not there.",
    fix: "Correct the line that is shown.",
  },
  E_PACKAGE: {
    cause: "The app imports a package that is not installed, or a part that the package does not have.",
    fix: "Install the package, or correct the import.",
  },
  E_LOADER: {
    cause: "The app imports a file of a type that cannot be part of a bundle.",
    fix: 'Import it with { type: "text" } or { type: "bytes" }, or name it by new URL("./file", import.meta.url).',
  },
  E_ADDON: {
    cause: "A package brings machine code, and none of it is for the enclave: Linux on x86_64 with glibc.",
    fix: "Install it for that platform: `npm install --os=linux --cpu=x64 --libc=glibc`, or `npm rebuild` it on Linux.",
  },
  E_DECORATOR_METADATA: {
    cause:
      "The app wants the types of decorated parameters at run time, which only tsc can write into its output.",
    fix: "Remove emitDecoratorMetadata, or compile with tsc first and name its output as entry.",
  },
  E_INSTALL: {
    cause: "A file that cloister needs is absent or is not the one it was released with.",
    fix: "Install again: `rm -rf node_modules && npm ci`.",
  },
  E_IMAGE_FILE: {
    cause: "The enclave image has no such file, or not one that can be shown here.",
    fix: "`cloister inspect FILE` lists what is inside.",
  },
  E_WRITE: {
    cause: "The image cannot be written. Whatever had its name before is untouched.",
    fix: "Make room, or choose another place with -o.",
  },
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof catalogue;
export const ERRORS: Readonly<Record<ErrorCode, ErrorEntry>> = catalogue;
