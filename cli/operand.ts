/** Values of options, parsed: each error names the option, what was found and what was expected. */
import { CloisterError } from "../format/errors.ts";
import type { Publish } from "../launcher/index.ts";

const UNIT_MIB: Readonly<Record<string, number>> = { "": 1, M: 1, MIB: 1, G: 1024, GIB: 1024 };

/** `512`, `512M`, `2G` → MiB. */
export function parseMemory(option: string, text: string): number {
  const [, digits = "", unit = ""] = /^(\d{1,9})([a-z]*)$/i.exec(text) ?? [];
  const factor = UNIT_MIB[unit.toUpperCase()];
  if (digits === "" || factor === undefined || Number(digits) === 0) {
    throw refusal(option, text, "MiB, or a size such as 512M or 2G");
  }
  return Number(digits) * factor;
}

/** An integer from `least` to `most`. */
export function parseInteger(option: string, text: string, least: number, most: number): number {
  const value = /^\d{1,12}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= least && value <= most) return value;
  throw refusal(option, text, `a number from ${least} to ${most}`);
}

/** `8080:8080`, `127.0.0.1:0:8080`, `[::1]:80:8080` → a published port. vsock ports are 32 bits wide. */
export function parsePublish(text: string): Publish {
  const [, bracketed, plain, port = "", vsockPort = ""] =
    /^(?:(?:\[([^\]]+)\]|([^:]+)):)?(\d+):(\d+)$/.exec(text) ?? [];
  if (vsockPort === "") throw refusal("--publish", text, "[ADDR:]PORT:VSOCKPORT, such as 8080:8080");
  const address = bracketed ?? plain;
  return {
    ...(address !== undefined && { address }),
    port: parseInteger("--publish, its port", port, 0, 65_535),
    vsockPort: parseInteger("--publish, its vsock port", vsockPort, 0, 0xffff_fffe),
  };
}

export function refusal(option: string, got: string, expected: string): CloisterError {
  return new CloisterError("E_USAGE", `${option}: got "${got}", expected ${expected}`);
}

const ALGORITHMS = ["none", "gzip", "zstd"] as const;

/** `none`, `gzip`, `zstd:19` → how ramdisks are stored; the packer checks the level. */
export function parseCompression(text: string): {
  readonly algorithm: (typeof ALGORITHMS)[number];
  readonly level?: number;
} {
  const [name, level, ...rest] = text.split(":");
  const algorithm = ALGORITHMS.find((known) => known === name);
  if (algorithm === undefined || rest.length > 0) {
    throw refusal("--compression", text, "none, gzip or zstd, with an optional level: zstd:19");
  }
  return level === undefined
    ? { algorithm }
    : { algorithm, level: parseInteger("--compression, its level", level, 1, 22) };
}
