/**
 * The configuration that `cloister.config.ts` default-exports, and what of it is valid. This is also what the package
 * name `cloister` resolves to, so it imports nothing that a configuration does not need.
 */
import { EGRESS_EXPECTED, parseEgressRule } from "../format/egress.ts";
import type { EnclaveJson } from "../format/enclave.ts";
import { isRedactRule, REDACT_EXPECTED } from "../format/redact.ts";
import { Check } from "./check.ts";

/** How a ramdisk is stored. The kernel unpacks it at boot, so smaller is slower to start and the reverse. */
export type Compression =
  | { readonly algorithm: "none" }
  /** Level 1 to 9. */
  | { readonly algorithm: "gzip"; readonly level: number }
  /** Level 1 to 22. */
  | { readonly algorithm: "zstd"; readonly level: number };

/** As the configuration has it: MiB as a number, or with its unit. */
export type MemorySize = number | `${number}M` | `${number}G`;

/** `HOST:PORT`, `*` as port for every one. TypeScript takes the first colon for the port's but for the bracket. */
export type EgressRuleText = `${string}:${number | "*"}` | `[${string}]:${number}`;

export interface CloisterConfig {
  /** Of a `cloister.config.json`: where its schema is, for editors. Means nothing. */
  readonly $schema?: string;
  /** Name of the enclave: letters, digits, `.`, `_`, `-`; at most 64. Default: package.json's, without its scope. */
  readonly name?: string;
  /** The app's entry module, relative to the configuration. Default: app.ts, src/app.ts, index.ts, … */
  readonly entry?: string;
  /** Memory of the enclave: MiB as a number, or "512M", "2G". Default: "512M". */
  readonly memory?: MemorySize;
  /** Virtual CPUs. Default: 2. */
  readonly cpus?: number;
  /** vsock ports of the app; a default-exported `{ fetch }` is served on the first. Default: [8080]. */
  readonly ports?: readonly number[];
  /** Environment of the app. Measured, and readable by whoever has the EIF: no secrets. */
  readonly env?: Readonly<Record<string, string>>;
  /**
   * Where the app may connect to: "api.example.com:443", "*.example.com:443" (one label or more), "10.0.0.5:5432",
   * "[2001:db8::1]:443"; `*` is every port. Default: nowhere.
   */
  readonly egress?: readonly EgressRuleText[];
  /** PEM files, relative to the configuration, of certificate authorities to trust besides Node's own. Default: none. */
  readonly ca?: readonly string[];
  /**
   * Serve attestation documents at /.well-known/attestation, and encrypted requests, for a default-exported `{ fetch }`.
   * Default: true.
   */
  readonly attestation?: boolean;
  /**
   * Serve the default-exported `{ fetch }` with TLS, by a key that is made in the enclave at start and bound into its
   * attestation documents. Default: false.
   */
  readonly tls?: boolean;
  /** `"listen"`: ready when a port of the app listens. `"app"`: when the app calls `ready()` of `cloister/runtime`. Default: "listen". */
  readonly ready?: "listen" | "app";
  /**
   * What log records never show: a word is a field of JSON records, whose value is left out; "/pattern/" is a regular
   * expression, and what it matches is left out of any text. Default: none.
   */
  readonly redact?: readonly string[];
  /** Most that files in /tmp may take of the enclave's memory: MiB as a number, or "64M", "1G". Default: a quarter of it. */
  readonly tmp?: MemorySize;
  /**
   * Every connection to `ports` begins with a PROXY protocol v2 header, by which the app sees its client's address as the
   * parent tells it. Default: false.
   */
  readonly proxyProtocol?: boolean;
  /** Default: zstd, level 9. */
  readonly compression?: { readonly algorithm?: Compression["algorithm"]; readonly level?: number };
}

/**
 * A configuration that has been checked. `entry` and `name` stay undefined where the project decides; `ca` still names files,
 * which the packer reads.
 */
export interface Config extends Omit<EnclaveJson, "version" | "name" | "entry" | "dev"> {
  readonly name: string | undefined;
  readonly entry: string | undefined;
  readonly memoryMiB: number;
  readonly cpus: number;
  readonly compression: Compression;
}

/** Types a configuration; returns it as it is. */
export function defineConfig(config: CloisterConfig): CloisterConfig {
  return config;
}

export const MEMORY_MIN_MIB = 64;
export const MEMORY_MAX_MIB = 1024 * 1024;
export const CPUS_MAX = 512;
/** VMADDR_PORT_ANY (vsock(7)) is the largest u32 and no port. */
export const PORT_MAX = 0xffff_fffe;
/** gzip(1) and zstd(1). zstd 9 is the measured default: docs/compression.md. */
export const LEVELS = {
  none: undefined,
  gzip: { max: 9, default: 9 },
  zstd: { max: 22, default: 9 },
} as const;

const FIELDS: readonly Exclude<keyof CloisterConfig, "$schema">[] = [
  "name",
  "entry",
  "memory",
  "cpus",
  "ports",
  "env",
  "egress",
  "ca",
  "attestation",
  "tls",
  "ready",
  "redact",
  "tmp",
  "proxyProtocol",
  "compression",
];

/**
 * Check a configuration of unknown shape and fill in the defaults. `file` is shown in messages.
 * Throws E_CONFIG: `cloister.config.ts: ports[1]: got "x", expected …`.
 */
export function parseConfig(value: unknown, file: string): Config {
  const check = new Check(file);
  const { $schema, ...fields } = check.object(value, "the default export");
  check.optional($schema, "$schema", (text) => typeof text === "string", "the path of a JSON schema");
  // Absent and undefined are the same; null is neither.
  const {
    memory = "512M",
    cpus = 2,
    ports = [8080],
    env = {},
    egress = [],
    ca = [],
    attestation = true,
    tls = false,
    ready = "listen",
    redact = [],
    proxyProtocol = false,
    compression = {},
    ...config
  } = check.object(fields, "the default export", FIELDS);
  const memoryMiB = parseMemory(check, memory);
  return {
    name: check.optional(config.name, "name", isName, NAME_EXPECTED),
    entry: check.optional(config.entry, "entry", isNonEmpty, "the path of a module"),
    memoryMiB,
    cpus: check.integer(cpus, "cpus", 1, CPUS_MAX),
    ports: parsePorts(check, ports),
    env: parseEnv(check, env),
    egress: parseEgress(check, egress),
    ca: parseList(check, ca, "ca", "an array of PEM files").map((file, index) => {
      if (isNonEmpty(file)) return file;
      throw check.failure(`ca[${index}]`, file, "the path of a PEM file");
    }),
    ...parseAttestation(check, attestation, tls),
    ready: parseReady(check, ready),
    redact: parseRedact(check, redact),
    tmpMiB: parseTmp(check, config.tmp, memoryMiB),
    proxyProtocol: check.boolean(proxyProtocol, "proxyProtocol"),
    compression: parseCompression(check, compression),
  };
}

export const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
export const VARIABLE = /^[A-Za-z_][A-Za-z0-9_]*$/;
const NAME_EXPECTED = "1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit";

function isName(value: unknown): value is string {
  return typeof value === "string" && NAME.test(value);
}

function isNonEmpty(value: unknown): value is string {
  return typeof value === "string" && value !== "" && !value.includes("\0");
}

/** MiB of what may be MiB, "512M" or "2G"; anything else stays as it is. */
function mebibytes(value: unknown): unknown {
  const match = typeof value === "string" ? /^(\d{1,7})([MG])$/.exec(value) : null;
  return match === null ? value : Number(match[1]) * (match[2] === "G" ? 1024 : 1);
}

function parseMemory(check: Check, value: unknown): number {
  const expected = `MiB as a number, or "512M", "2G", from ${MEMORY_MIN_MIB} MiB to 1 TiB, even`;
  const mib = mebibytes(value);
  // The driver takes memory in pieces of 2 MiB (NE_MIN_MEM_REGION_SIZE).
  const valid = Number.isInteger(mib) && (mib as number) % 2 === 0;
  if (!valid || (mib as number) < MEMORY_MIN_MIB || (mib as number) > MEMORY_MAX_MIB) {
    throw check.failure("memory", value, expected);
  }
  return mib as number;
}

function parseList(check: Check, value: unknown, path: string, expected: string): readonly unknown[] {
  if (Array.isArray(value)) return value;
  throw check.failure(path, value, expected);
}

function parseEgress(check: Check, value: unknown): readonly string[] {
  return parseList(check, value, "egress", "an array of HOST:PORT").map((rule, index) => {
    if (typeof rule === "string" && parseEgressRule(rule) !== undefined) return rule;
    throw check.failure(`egress[${index}]`, rule, EGRESS_EXPECTED);
  });
}

function parsePorts(check: Check, value: unknown): readonly number[] {
  const ports = parseList(check, value, "ports", "an array of vsock ports").map((port, index) =>
    check.integer(port, `ports[${index}]`, 1, PORT_MAX),
  );
  ports.forEach((port, index) => {
    const first = ports.indexOf(port);
    if (first !== index)
      throw check.failure(`ports[${index}]`, port, `a port that is not ports[${first}] already`);
  });
  return ports;
}

function parseEnv(check: Check, value: unknown): Readonly<Record<string, string>> {
  const entries = Object.entries(check.object(value, "env"));
  for (const [name, text] of entries) {
    if (!VARIABLE.test(name)) {
      throw check.failure("env", name, "names of letters, digits and '_' that begin with no digit");
    }
    if (typeof text !== "string" || text.includes("\0") || !text.isWellFormed()) {
      throw check.failure(`env.${name}`, text, "a string without NUL");
    }
  }
  return Object.fromEntries(entries) as Record<string, string>;
}

function parseAttestation(check: Check, attestation: unknown, tls: unknown) {
  const fields = {
    attestation: check.boolean(attestation, "attestation"),
    tls: check.boolean(tls, "tls"),
  };
  // Nothing would say whose key it is.
  if (fields.tls && !fields.attestation)
    throw check.failure("tls", tls, 'false, with "attestation" turned off');
  return fields;
}

function parseReady(check: Check, value: unknown): "listen" | "app" {
  if (value === "listen" || value === "app") return value;
  throw check.failure("ready", value, '"listen" or "app"');
}

function parseRedact(check: Check, value: unknown): readonly string[] {
  return parseList(check, value, "redact", REDACT_LIST_EXPECTED).map((rule, index) => {
    if (typeof rule === "string" && isRedactRule(rule)) return rule;
    throw check.failure(`redact[${index}]`, rule, REDACT_EXPECTED);
  });
}

const REDACT_LIST_EXPECTED = 'an array of field names and "/patterns/"';

function parseTmp(check: Check, value: unknown, memoryMiB: number): number {
  const mib = value === undefined ? Math.ceil(memoryMiB / 4) : mebibytes(value);
  if (Number.isInteger(mib) && (mib as number) >= 1 && (mib as number) <= memoryMiB) return mib as number;
  throw check.failure(
    "tmp",
    value,
    `MiB as a number, or "64M", "1G", from 1 MiB to the enclave's ${memoryMiB}`,
  );
}

function parseCompression(check: Check, value: unknown): Compression {
  const { algorithm = "zstd", level } = check.object(value, "compression", ["algorithm", "level"]);
  if (algorithm !== "none" && algorithm !== "gzip" && algorithm !== "zstd") {
    throw check.failure("compression.algorithm", algorithm, '"none", "gzip" or "zstd"');
  }
  if (algorithm === "none") {
    if (level !== undefined) throw check.failure("compression.level", level, 'no level with "none"');
    return { algorithm };
  }
  const levels = LEVELS[algorithm];
  return {
    algorithm,
    level: check.integer(level === undefined ? levels.default : level, "compression.level", 1, levels.max),
  };
}
