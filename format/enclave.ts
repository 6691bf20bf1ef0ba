import { EGRESS_EXPECTED, parseEgressRule } from "./egress.ts";
import { JsonNode } from "./json.ts";
import { isRedactRule, REDACT_EXPECTED } from "./redact.ts";

/**
 * `/app/enclave.json`, the measured configuration: written by the packer, read by init. It lies in the app ramdisk
 * and so in PCR2; what the parent may decide at launch is not here.
 */
export interface EnclaveJson {
  readonly version: 1;
  readonly name: string;
  /** Entry module, relative to /app. */
  readonly entry: string;
  /** vsock ports of the app; the first is where a default-exported `{ fetch }` is served. */
  readonly ports: readonly number[];
  readonly env: Readonly<Record<string, string>>;
  /** Where connections may go: rules of egress.ts. */
  readonly egress: readonly string[];
  /** Certificate authorities that TLS trusts besides Node's own: PEM. */
  readonly ca: readonly string[];
  /** Serve attestation documents, and requests encrypted to the enclave, below /.well-known/. */
  readonly attestation: boolean;
  /** Serve `{ fetch }` with TLS, by a key that is made at start. */
  readonly tls: boolean;
  /** When the app is ready: a port of it listens, or it says so. */
  readonly ready: "listen" | "app";
  /** What log records never show: rules of redact.ts. */
  readonly redact: readonly string[];
  /** Size of the file system on /tmp, MiB. */
  readonly tmpMiB: number;
  /** Connections to `ports` begin with a PROXY protocol v2 header. */
  readonly proxyProtocol: boolean;
  /** Built for development: who can connect to the enclave can replace the app. Never attested as a release. */
  readonly dev: boolean;
}

/** Where the app lies in the enclave, and its measured configuration. */
export const APP_DIRECTORY = "/app";
export const ENCLAVE_JSON = "/app/enclave.json";
/** Name under which init publishes the runtime to the app: `globalThis[Symbol.for(RUNTIME_SYMBOL)]`. */
export const RUNTIME_SYMBOL = "cloister.runtime";

/** VMADDR_PORT_ANY, 2^32 - 1, is no port, and 0 is none that a program can ask for by number. */
const PORT_MAX = 2 ** 32 - 2;

/** The most memory that a configuration can ask for. */
const TMP_MAX_MIB = 1024 * 1024;

const FIELDS: readonly (keyof EnclaveJson)[] = [
  "version",
  "name",
  "entry",
  "ports",
  "env",
  "egress",
  "ca",
  "attestation",
  "tls",
  "ready",
  "redact",
  "tmpMiB",
  "proxyProtocol",
  "dev",
];

/** The file's bytes: the same for the same configuration, in whatever order its fields and variables were given. */
export function encodeEnclaveJson(config: EnclaveJson): Uint8Array {
  const ordered: EnclaveJson = {
    version: 1,
    name: config.name,
    entry: config.entry,
    ports: config.ports,
    env: Object.fromEntries(Object.entries(config.env).sort(([a], [b]) => (a < b ? -1 : 1))),
    egress: config.egress,
    ca: config.ca,
    attestation: config.attestation,
    tls: config.tls,
    ready: config.ready,
    redact: config.redact,
    tmpMiB: config.tmpMiB,
    proxyProtocol: config.proxyProtocol,
    dev: config.dev,
  };
  const bytes = new TextEncoder().encode(`${JSON.stringify(ordered, null, 2)}\n`);
  decodeEnclaveJson(bytes);
  return bytes;
}

/** Throws E_ENCLAVE_JSON with the path of the wrong value: `enclave.json: ports[1]: got 0, expected 1..4294967294`. */
export function decodeEnclaveJson(bytes: Uint8Array): EnclaveJson {
  const root = JsonNode.parse("E_ENCLAVE_JSON", "enclave.json", bytes);
  root.only(FIELDS);
  root.get("version").integer(1, 1);
  return {
    version: 1,
    name: readName(root.get("name")),
    entry: readEntry(root.get("entry")),
    ports: readPorts(root.get("ports")),
    env: readEnv(root.get("env")),
    egress: root.get("egress").items().map(readRule),
    ca: root
      .get("ca")
      .items()
      .map((item) => item.string()),
    attestation: root.get("attestation").boolean(),
    tls: root.get("tls").boolean(),
    ready: root.get("ready").choice(["listen", "app"]),
    redact: root.get("redact").items().map(readRedact),
    tmpMiB: root.get("tmpMiB").integer(1, TMP_MAX_MIB),
    proxyProtocol: root.get("proxyProtocol").boolean(),
    dev: root.get("dev").boolean(),
  };
}

function readName(node: JsonNode): string {
  const name = node.string();
  if (name !== "" && !/[\0-\x1f/]/.test(name)) return name;
  throw node.wrong("a name without slashes and control characters");
}

/** A path below /app that cannot leave it. */
function readEntry(node: JsonNode): string {
  const entry = node.string();
  const parts = entry.split("/");
  if (!entry.includes("\0") && parts.every((part) => part !== "" && part !== "." && part !== ".."))
    return entry;
  throw node.wrong("a path below /app");
}

function readPorts(node: JsonNode): number[] {
  const ports = new Set<number>();
  for (const item of node.items()) {
    const port = item.integer(1, PORT_MAX);
    if (ports.has(port)) throw item.wrong("each port once");
    ports.add(port);
  }
  return [...ports];
}

function readRule(node: JsonNode): string {
  const rule = node.string();
  if (parseEgressRule(rule) !== undefined) return rule;
  throw node.wrong(EGRESS_EXPECTED);
}

function readRedact(node: JsonNode): string {
  const rule = node.string();
  if (isRedactRule(rule)) return rule;
  throw node.wrong(REDACT_EXPECTED);
}

/** environ(7): NAME=value strings that end in NUL. */
function readEnv(node: JsonNode): Record<string, string> {
  const variables = Object.keys(node.object()).map((name): [string, string] => {
    const value = node.get(name);
    if (name === "" || /[=\0]/.test(name)) throw value.wrong("a variable name without = and NUL");
    if (value.string().includes("\0")) throw value.wrong("a value without NUL");
    return [name, value.string()];
  });
  return Object.fromEntries(variables);
}
