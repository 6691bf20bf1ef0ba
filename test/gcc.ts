/** C programs of tests, compiled against the kernel's own headers: independent witnesses of numbers and behaviour. */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";

const HEADER = "/usr/include/linux/nitro_enclaves.h";

/** Why no program can be compiled here; undefined where one can. */
export function whyNoCompiler(): string | undefined {
  if (spawnSync("gcc", ["--version"]).status !== 0) return "no gcc";
  return existsSync(HEADER) ? undefined : `no ${HEADER} (linux-libc-dev)`;
}

/** Compile a program statically. Throws what the compiler said. */
export function compile(source: string, program: string): void {
  const words = [
    "-std=gnu11",
    "-static",
    "-pthread",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-O1",
    "-o",
    program,
    source,
  ];
  const { status, stderr } = spawnSync("gcc", words, { encoding: "utf8" });
  if (status !== 0) throw new Error(stderr);
}
