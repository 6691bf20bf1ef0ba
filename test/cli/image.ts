/** Small images for the verbs that take one apart, and a way to call a verb. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { onTestFinished } from "vitest";
import type { Io } from "../../cli/command.ts";
import { main } from "../../cli/main.ts";
import { type CpioEntry, encodeCpio } from "../../format/cpio.ts";
import { encodeEif } from "../../format/eif.ts";
import { encodeMetadata } from "../../format/metadata.ts";
import { concat } from "../../format/struct.ts";

export function archive(...entries: CpioEntry[]): Uint8Array {
  return concat(encodeCpio(entries));
}

export function file(path: string, text: string | Uint8Array, mode = 0o644): CpioEntry {
  return { type: "file", path, mode, data: typeof text === "string" ? Buffer.from(text) : text };
}

export interface Parts {
  readonly cmdline?: string;
  readonly name?: string;
  readonly ramdisks: readonly Uint8Array[];
}

/** Path of an EIF of these parts, removed after the test. */
export function image({ cmdline = "console=ttyS0", name = "app", ramdisks }: Parts): string {
  const metadata = encodeMetadata({
    ImageName: name,
    ImageVersion: "1",
    BuildMetadata: {
      BuildTime: "1970-01-01T00:00:00+00:00",
      BuildTool: "test",
      BuildToolVersion: "1",
      OperatingSystem: "Linux",
      KernelVersion: "1",
    },
    DockerInfo: null,
    CustomMetadata: null,
  });
  const parts = { kernel: Buffer.from("kernel"), cmdline: Buffer.from(cmdline), metadata, ramdisks };
  return saved(encodeEif({ arch: "x86_64", ...parts }));
}

export function saved(bytes: Uint8Array): string {
  const directory = mkdtempSync(join(tmpdir(), "cloister-image-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const path = join(directory, "image.eif");
  writeFileSync(path, bytes);
  return path;
}

export interface Called {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The verb as a function; `isTTY`: as on a terminal. */
export async function call(
  words: readonly string[],
  isTTY = false,
  directory = "/",
  env: NodeJS.ProcessEnv = {},
): Promise<Called> {
  const stdout = Object.assign(new PassThrough({ highWaterMark: 1 << 24 }), { isTTY });
  const stderr = Object.assign(new PassThrough(), { isTTY });
  const signal = new AbortController().signal;
  const io: Io = { stdout, stderr, env, directory, signal };
  const status = await main(words, io);
  return { status, stdout: String(stdout.read() ?? ""), stderr: String(stderr.read() ?? "") };
}
