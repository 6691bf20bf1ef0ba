/** One QEMU process: started with what it boots from, watched, killed. It ends when this process does, however that ends. */
import { type ChildProcess, spawn } from "node:child_process";
import { makeLeash } from "../linux/leash.ts";
import { Console } from "./console.ts";
import { DESCRIPTOR } from "./qemu.ts";

export interface MachineOptions {
  readonly program: string;
  readonly args: readonly string[];
  /** Descriptors of ours that QEMU inherits; they stay the caller's. */
  readonly vsock: number;
  readonly kernel: number;
  readonly initramfs: number;
}

export interface Machine {
  readonly pid: number;
  /** Serial console, and what QEMU itself says. */
  readonly console: Console;
  /** Settles when the process is gone and the console complete. */
  readonly exited: Promise<void>;
  /** SIGKILL. Idempotent. */
  kill(): void;
}

/** Throws Node's spawn errors (ENOENT, EACCES, EAGAIN) or SystemError. */
export async function startMachine(options: MachineOptions): Promise<Machine> {
  const leash = makeLeash();
  try {
    const child = spawn(options.program, options.args, {
      stdio: inheritance(options, leash.descriptor),
      cwd: "/",
      // A session of its own: Ctrl-C in the terminal is for the launcher, which asks the app to stop.
      detached: true,
    });
    const { promise: exited, resolve: settle } = Promise.withResolvers<void>();
    const console = drain(child);
    child.once("close", () => {
      leash.close();
      console.end();
      settle();
    });
    // In the same tick as spawn(): QEMU is not past its vhost-user handshake, and ends if we are gone before it.
    const { pid } = child;
    if (pid === undefined) throw await startError(child);
    leash.hold(pid);
    return { pid, console, exited, kill: () => child.kill("SIGKILL") };
  } catch (error) {
    leash.close();
    throw error;
  }
}

function inheritance(
  { vsock, kernel, initramfs }: MachineOptions,
  leash: number,
): ("ignore" | "pipe" | number)[] {
  const stdio: ("ignore" | "pipe" | number)[] = ["ignore", "pipe", "pipe"];
  stdio[DESCRIPTOR.vsock] = vsock;
  stdio[DESCRIPTOR.kernel] = kernel;
  stdio[DESCRIPTOR.initramfs] = initramfs;
  stdio[DESCRIPTOR.leash] = leash;
  return stdio;
}

function drain(child: ChildProcess): Console {
  const console = new Console();
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on("data", (chunk: Buffer) => console.write(chunk));
  }
  return console;
}

function startError(child: ChildProcess): Promise<Error> {
  const { promise, resolve } = Promise.withResolvers<Error>();
  child.once("error", resolve);
  return promise;
}
