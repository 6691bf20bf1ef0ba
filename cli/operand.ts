/** Values of options, parsed: each error names the option, what was found and what was expected. */
import { CloisterError } from "../format/errors.ts";
import type { Place, Publish } from "../launcher/index.ts";
import type { TcpPlace } from "../launcher/listener.ts";

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

const PUBLISH_EXPECTED =
  "[ADDR:]PORT:VSOCKPORT, unix:PATH:VSOCKPORT or systemd[:NAME]:VSOCKPORT, such as 8080:8080, and if need be ,proxy";

/**
 * `8080:8080`, `127.0.0.1:0:8080`, `[::1]:80:8080`, `unix:/run/app.sock:8080`, `systemd:8080`, `systemd:web:8080` → where
 * to listen and for which vsock port; `,proxy` and `,noproxy` behind it. vsock ports are 32 bits wide.
 */
export function parsePublish(text: string): Publish {
  const [, where = "", digits = "", header] = /^(.+?):(\d+)(,proxy|,noproxy)?$/.exec(text) ?? [];
  const place = parsePlace(where);
  if (place === undefined) throw refusal("--publish", text, PUBLISH_EXPECTED);
  return {
    ...place,
    vsockPort: parseInteger("--publish, its vsock port", digits, 0, 0xffff_fffe),
    ...(header !== undefined && { proxyProtocol: header === ",proxy" }),
  };
}

function parsePlace(where: string): Place | undefined {
  const [, path] = /^unix:(.+)$/.exec(where) ?? [];
  if (path !== undefined) return { path };
  if (where === "systemd") return { systemd: "" };
  // FileDescriptorName of systemd.socket(5).
  const [, systemd] = /^systemd:([^:\x00-\x1f]{1,255})$/.exec(where) ?? [];
  if (systemd !== undefined) return { systemd };
  return parseTcp("--publish", where);
}

function parseTcp(option: string, text: string): TcpPlace | undefined {
  const [, bracketed, plain, port] = /^(?:(?:\[([^\]]+)\]|([^:]+)):)?(\d+)$/.exec(text) ?? [];
  if (port === undefined) return undefined;
  const address = bracketed ?? plain;
  return {
    ...(address !== undefined && { address }),
    port: parseInteger(`${option}, its port`, port, 0, 65_535),
  };
}

/** `9100`, `0.0.0.0:9100`, `[::1]:0` → where to listen. */
export function parseAddress(option: string, text: string): TcpPlace {
  const place = parseTcp(option, text);
  if (place !== undefined) return place;
  throw refusal(option, text, "[ADDR:]PORT, such as 9100");
}

/** The inverse of `parsePublish`. */
export function publishText({ vsockPort, proxyProtocol, ...place }: Publish): string {
  const header = proxyProtocol === undefined ? "" : proxyProtocol ? ",proxy" : ",noproxy";
  return `${placeText(place)}:${vsockPort}${header}`;
}

/** The inverse of `parseAddress`, and of what `parsePublish` reads before the vsock port. */
export function placeText(place: Place): string {
  if ("path" in place) return `unix:${place.path}`;
  if ("systemd" in place) return place.systemd === "" ? "systemd" : `systemd:${place.systemd}`;
  const { address, port } = place;
  if (address === undefined) return `${port}`;
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
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
