import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { styleText } from "node:util";
import { developmentRootFolder, openDevelopmentRoot } from "../emulator/nsm/root.ts";
import { decodePem } from "../format/certificate.ts";
import { CloisterError, ERRORS, mismatch } from "../format/errors.ts";
import { toHex } from "../format/struct.ts";
import {
  type AttestationDocument,
  AttestationError,
  fingerprint,
  type Policy,
  policyFromBuild,
  readPolicy,
  type Step,
  type VerifyOptions,
  verifyAttestation,
} from "../format/verify.ts";
import { command, type Io, type Options, oneOperand, type Values } from "./command.ts";
import { describeFile } from "./describe.ts";
import { type Asked, askEndpoint, endpointOf, tlsEnd } from "./endpoint.ts";
import { parseInteger } from "./operand.ts";
import { reportError } from "./report.ts";

/** Bytes. Larger files are none of these. */
const FILE_MAX = 1 << 20;
const NONCE_SIZE = 32;

const OPTIONS = {
  eif: { type: "string", multiple: true, value: "FILE", description: "Accept this image; may be repeated" },
  pcrs: {
    type: "string",
    value: "FILE",
    description: "Accept these measurements: what `build --json` printed, a list of such, or a policy",
  },
  root: {
    type: "string",
    multiple: true,
    value: "FILE",
    description: "Trust this root (PEM, DER; dev: your emulator's own) instead of AWS's; may be repeated",
  },
  nonce: {
    type: "string",
    value: "HEX",
    description: "The nonce that was sent (URL: default is a fresh one)",
  },
  "skip-nonce": { type: "boolean", description: "FILE: accept a document that may have been recorded" },
  "max-age": {
    type: "string",
    value: "SECONDS",
    description: "How old the document may be (default: 300)",
  },
  "allow-development": {
    type: "boolean",
    description: "Accept an image of `cloister dev`, whose app can be replaced",
  },
  at: {
    type: "string",
    value: "TIME",
    description: "FILE: verify as of this time, not now: 2026-01-02T03:04:05Z",
  },
  json: { type: "boolean", description: "One JSON value with the verdict, the steps and the document" },
} as const satisfies Options;

export const attest = command({
  name: "attest",
  operands: "URL|FILE",
  options: OPTIONS,
  examples: [
    "cloister attest https://enclave.example --eif app.eif",
    "cloister build --json > release.json && cloister attest http://127.0.0.1:8080 --pcrs release.json --root dev",
    "cloister attest document.bin --pcrs release.json --nonce 00112233445566778899aabbccddeeff",
  ],
  async run(io, operands, values) {
    const operand = oneOperand({ name: "attest" }, operands, "URL or file");
    const { bytes, options, tlsKey } = await question(io, operand, values);
    try {
      const { document, steps } = await verifyAttestation(bytes, options);
      const tls = tlsKey === undefined ? undefined : tlsEnd(document.userData, tlsKey);
      io.stdout.write(
        values.json === true
          ? json({ Verified: true, TlsEndsIn: tls, ...stepsJson(steps), Document: fields(document) })
          : accepted(steps, tls, io),
      );
      return 0;
    } catch (error) {
      if (!(error instanceof AttestationError)) throw error;
      io.stdout.write(values.json === true ? json(verdictJson(error)) : text(error.steps, io));
      // Without its --json: standard output holds one value.
      return reportError(error, ["attest"], io);
    }
  },
});

type Given = Values<typeof OPTIONS>;

/** The document and what to verify it against. */
async function question(
  io: Io,
  operand: string,
  values: Given,
): Promise<Asked & { readonly options: VerifyOptions }> {
  const remote = /^https?:/i.test(operand);
  const skip = values["skip-nonce"] === true;
  if (remote && (skip || values.at !== undefined)) {
    throw usage("found --skip-nonce or --at with a URL, expected them with a file only");
  }
  if (!remote && skip === (values.nonce !== undefined)) {
    throw usage("a file needs its nonce, --nonce HEX, or else --skip-nonce");
  }
  const nonce = values.nonce === undefined ? randomBytes(NONCE_SIZE) : parseNonce(values.nonce);
  const freshness = skip ? ({ dangerouslySkipNonce: true } as const) : { nonce };
  const common = {
    policy: await readAccepted(values),
    ...(values.root === undefined
      ? {}
      : { roots: await Promise.all(values.root.map((path) => readRoot(path, io.env))) }),
    ...(values["max-age"] === undefined
      ? {}
      : { maxAge: parseInteger("--max-age", values["max-age"], 1, 1e9) * 1000 }),
    ...(values.at === undefined ? {} : { now: parseTime(values.at) }),
    ...(values["allow-development"] === true ? { dangerouslyAllowDevelopment: true } : {}),
  };
  const asked = remote
    ? await askEndpoint(endpointOf(operand), nonce, io.signal)
    : { bytes: await readSmall(operand) };
  return { ...asked, options: { ...common, ...freshness } };
}

async function readAccepted({ eif, pcrs }: Given): Promise<Policy> {
  if ((eif === undefined) === (pcrs === undefined)) throw usage("expected either --eif FILE or --pcrs FILE");
  if (pcrs === undefined) return policyFromBuild(...(await Promise.all((eif ?? []).map(describeFile))));
  const content = new TextDecoder().decode(await readSmall(pcrs));
  try {
    return readPolicy(JSON.parse(content));
  } catch (cause) {
    const message = `${pcrs}: ${(cause as Error).message}`;
    if (cause instanceof CloisterError || cause instanceof SyntaxError) {
      throw new CloisterError("E_ATTESTATION_POLICY", message, { cause });
    }
    throw cause;
  }
}

/** The fingerprint of a certificate, PEM or DER; `dev` is this user's development root. */
async function readRoot(path: string, env: NodeJS.ProcessEnv): Promise<string> {
  if (path === "dev") return fingerprint((await openDevelopmentRoot(developmentRootFolder(env))).certificate);
  const bytes = await readSmall(path);
  // DER begins with a SEQUENCE, PEM with a dash or a comment.
  return fingerprint(bytes[0] === 0x30 ? bytes : decodePem(bytes));
}

async function readSmall(path: string): Promise<Uint8Array> {
  const bytes = await readFile(path).catch((cause: NodeJS.ErrnoException) => {
    throw mismatch("E_ATTESTATION_READ", path, cause.code ?? cause.message, "a readable file");
  });
  if (bytes.length <= FILE_MAX) return bytes;
  throw mismatch("E_ATTESTATION_READ", path, `${bytes.length} bytes`, `at most ${FILE_MAX}`);
}

function parseNonce(hex: string): Uint8Array {
  if (/^(?:[0-9a-fA-F]{2}){16,512}$/.test(hex)) return Buffer.from(hex, "hex");
  throw usage(`--nonce: got ${hex.length} characters, expected 16 to 512 bytes in hexadecimal`);
}

function parseTime(given: string): number {
  const time = Date.parse(given);
  if (Number.isFinite(time)) return time;
  throw usage(`--at: got "${given}", expected a time such as 2026-01-02T03:04:05Z`);
}

function usage(message: string): CloisterError {
  return new CloisterError("E_USAGE", `cloister attest: ${message}`);
}

const MARKS = {
  passed: ["ok", "green"],
  failed: ["FAILED", "red"],
  skipped: ["not checked", "yellow"],
} as const;

function text(steps: readonly Step[], io: Io): string {
  const colour = io.stdout.isTTY === true && io.env.NO_COLOR === undefined;
  const lines = steps.flatMap(({ name, status, checked, got, expected }) => {
    const [mark, style] = MARKS[status];
    const padded = mark.padEnd(12);
    return [
      `${colour ? styleText(style, padded, { validateStream: false }) : padded}${checked}`,
      `${" ".repeat(12)}${name}: ${got}`,
      ...(expected === undefined ? [] : [`${" ".repeat(12)}expected: ${expected}`]),
    ];
  });
  return `${lines.join("\n")}\n`;
}

function accepted(steps: readonly Step[], tls: string | undefined, io: Io): string {
  const skipped = steps.filter(({ status }) => status === "skipped").map(({ name }) => name);
  const but = skipped.length === 0 ? "" : `; not checked: ${skipped.join(", ")}`;
  const end =
    tls === undefined
      ? ""
      : tls === "enclave"
        ? "; TLS ends in the enclave"
        : "; TLS ends before the enclave";
  return `${text(steps, io)}\nverified${end}${but}\n`;
}

function json(value: object): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

function stepsJson(steps: readonly Step[]) {
  return {
    Steps: steps.map(({ name, status, checked, got, expected }) => ({
      ...{ Name: name, Status: status, Checked: checked, Got: got },
      ...(expected === undefined ? {} : { Expected: expected }),
    })),
  };
}

function verdictJson(error: AttestationError): object {
  const { code, message } = error;
  const failure = { Code: code, Message: message, Fix: ERRORS[code].fix };
  return { Verified: false, FailedStep: error.step, ...stepsJson(error.steps), Error: failure };
}

/** Byte strings in hexadecimal. */
function fields(document: AttestationDocument): object {
  const hex = (bytes: Uint8Array | null) => (bytes === null ? null : toHex(bytes));
  const pcrs = [...document.pcrs].map(([index, value]) => [`PCR${index}`, toHex(value)]);
  return {
    ModuleId: document.moduleId,
    Digest: document.digest,
    Timestamp: new Date(document.timestamp).toISOString(),
    Measurements: Object.fromEntries(pcrs),
    PublicKey: hex(document.publicKey),
    UserData: hex(document.userData),
    Nonce: hex(document.nonce),
  };
}
