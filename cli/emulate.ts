import { constants } from "node:os";
import { emulate as emulateCommand } from "../emulator/notify/index.ts";
import { CloisterError } from "../format/errors.ts";
import { NE_IOCTL, type NeIoctl } from "../linux/enclaves.ts";
import { command, type Io } from "./command.ts";
import { parseInteger } from "./operand.ts";

/** The last error number that the kernel lets a call fail with (MAX_ERRNO). */
const ERRNO_MAX = 4095;
const CORES_MAX = 512;

export const emulate = command({
  name: "emulate",
  operands: "-- COMMAND [WORD…]",
  options: {
    cores: {
      type: "string",
      value: "N",
      description: "CPU cores of the parent; all but one are in the pool (64)",
    },
    threads: { type: "string", value: "N", description: "Threads of a core: 2, or 1 as on Graviton (2)" },
    regions: { type: "string", value: "N", description: "Memory regions that an enclave can have (1024)" },
    fail: {
      type: "string",
      multiple: true,
      value: "IOCTL=ERRNO",
      description: "Let an ioctl fail, such as NE_START_ENCLAVE=EIO or NE_ADD_VCPU=272",
    },
    verbose: {
      type: "boolean",
      short: "v",
      description: "Refused ioctls and the QEMU command on standard error",
    },
  },
  examples: [
    "cloister emulate -- nitro-cli run-enclave --eif-path app.eif --cpu-count 2 --memory 512",
    "cloister emulate -- cloister run app.eif --publish 8080:8080",
  ],
  async run(io, operands, values) {
    if (operands.length === 0)
      throw new CloisterError("E_USAGE", "cloister emulate: found no command, expected one");
    const cores = parseInteger("--cores", values.cores ?? "64", 2, CORES_MAX);
    const end = await emulateCommand(operands, {
      env: io.env,
      onSignal: (pass) => forwardSignal(io, pass),
      cpus: {
        cores,
        threadsPerCore: parseInteger("--threads", values.threads ?? "2", 1, 2),
        pool: Array.from({ length: cores - 1 }, (_, index) => index + 1),
      },
      maxMemoryRegions: parseInteger("--regions", values.regions ?? "1024", 1, 1_000_000),
      faults: new Map((values.fail ?? []).map(parseFault)),
      onRefusal: (error) => {
        if (values.verbose === true || error.cause !== undefined) {
          io.stderr.write(`cloister emulate: ${error.message}\n`);
        }
      },
      onCommand: (argv) => values.verbose === true && io.stderr.write(`$ ${argv.join(" ")}\n`),
    });
    return "status" in end ? end.status : 128 + constants.signals[end.signal];
  },
});

/** A terminal sends SIGINT to the command too: passing it on would ask twice. */
function forwardSignal({ signal }: Io, pass: (signal: NodeJS.Signals) => void): void {
  const forward = () => {
    if (signal.reason !== "SIGINT" || !process.stdin.isTTY) pass(signal.reason);
  };
  signal.addEventListener("abort", forward, { once: true });
}

function parseFault(text: string): [NeIoctl, number] {
  const [name = "", error = ""] = text.split("=");
  const number = constants.errno[error as keyof typeof constants.errno] ?? Number(error);
  if (name in NE_IOCTL && Number.isInteger(number) && number >= 1 && number <= ERRNO_MAX) {
    return [name as NeIoctl, number];
  }
  throw new CloisterError("E_USAGE", `--fail: got "${text}", expected IOCTL=ERRNO, such as NE_ADD_VCPU=272`);
}
