/**
 * The configuration as a JSON schema, for editors of `cloister.config.json`: what `parseConfig` checks, as far as a
 * schema can say it. The parser decides: bounds of sizes written as texts, hosts and regular expressions are its own.
 */
import { CPUS_MAX, LEVELS, MEMORY_MAX_MIB, MEMORY_MIN_MIB, NAME, PORT_MAX, VARIABLE } from "./config.ts";

/** A schema's URI, by which tools know the dialect: draft-07 is what editors have. */
const DIALECT = "http://json-schema.org/draft-07/schema#";

const TEXT = { type: "string", minLength: 1, pattern: "^[^\\u0000]*$" } as const;

/** `HOST:PORT`; which hosts there are, `parseEgressRule` knows. */
const EGRESS = "^(?:\\[[0-9A-Fa-f:.]+\\]|(?:\\*\\.)?[A-Za-z0-9_.-]+):(?:\\*|[0-9]{1,5})$";

/** Bounds in MiB hold for numbers. */
function size(bounds: object): readonly object[] {
  return [
    { type: "integer", maximum: MEMORY_MAX_MIB, ...bounds },
    { type: "string", pattern: "^[0-9]{1,7}[MG]$" },
  ];
}

const PROPERTIES = {
  $schema: { type: "string", description: "Where this schema is, for editors." },
  name: {
    type: "string",
    pattern: NAME.source,
    description: "Name of the enclave. Default: package.json's, without its scope.",
  },
  entry: {
    ...TEXT,
    description: "The app's entry module, relative to this file. Default: app.ts, src/app.ts, index.ts, …",
  },
  memory: {
    anyOf: size({ minimum: MEMORY_MIN_MIB, multipleOf: 2 }),
    default: "512M",
    description: 'Memory of the enclave: MiB as a number, even, or "512M", "2G".',
  },
  cpus: { type: "integer", minimum: 1, maximum: CPUS_MAX, default: 2, description: "Virtual CPUs." },
  ports: {
    type: "array",
    items: { type: "integer", minimum: 1, maximum: PORT_MAX },
    uniqueItems: true,
    default: [8080],
    description: "vsock ports of the app; a default-exported { fetch } is served on the first.",
  },
  env: {
    type: "object",
    propertyNames: { pattern: VARIABLE.source },
    additionalProperties: { type: "string", pattern: "^[^\\u0000]*$" },
    default: {},
    description: "Environment of the app. Measured, and readable by whoever has the image: no secrets.",
  },
  egress: {
    type: "array",
    items: { type: "string", pattern: EGRESS },
    default: [],
    description: 'Where the app may connect to: "api.example.com:443", "*.example.com:443", "10.0.0.5:*".',
  },
  ca: {
    type: "array",
    items: TEXT,
    default: [],
    description: "PEM files of certificate authorities to trust besides Node's own.",
  },
  attestation: {
    type: "boolean",
    default: true,
    description: "Serve attestation documents, and encrypted requests, for a default-exported { fetch }.",
  },
  tls: {
    type: "boolean",
    default: false,
    description:
      "Serve { fetch } with TLS by a key made in the enclave and bound into its attestation documents.",
  },
  ready: {
    enum: ["listen", "app"],
    default: "listen",
    description:
      '"listen": ready when a port listens. "app": when the app calls ready() of cloister/runtime.',
  },
  redact: {
    type: "array",
    items: { type: "string", minLength: 1 },
    default: [],
    description: 'What log records never show: names of fields, and "/patterns/".',
  },
  tmp: {
    anyOf: size({ minimum: 1 }),
    description: 'Most that files in /tmp may take of the memory: MiB, or "64M", "1G". Default: a quarter.',
  },
  proxyProtocol: {
    type: "boolean",
    default: false,
    description: "Every connection to ports begins with a PROXY protocol v2 header.",
  },
  compression: {
    type: "object",
    properties: {
      algorithm: { enum: Object.keys(LEVELS), default: "zstd" },
      level: { type: "integer", minimum: 1, maximum: LEVELS.zstd.max },
    },
    additionalProperties: false,
    allOf: [
      only("none", { not: { required: ["level"] } }),
      only("gzip", { properties: { level: { maximum: LEVELS.gzip.max } } }),
    ],
    description: "How the ramdisks are stored. Default: zstd, level 9.",
  },
} as const;

/** What holds where this algorithm is named. */
function only(algorithm: keyof typeof LEVELS, then: object): object {
  return { if: { properties: { algorithm: { const: algorithm } }, required: ["algorithm"] }, then };
}

/** The schema's document. */
export function configSchema(): object {
  return {
    $schema: DIALECT,
    title: "cloister.config.json",
    type: "object",
    properties: PROPERTIES,
    additionalProperties: false,
    // Nothing would say whose key it is.
    not: {
      properties: { tls: { const: true }, attestation: { const: false } },
      required: ["tls", "attestation"],
    },
  };
}
