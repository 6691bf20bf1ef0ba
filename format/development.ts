/**
 * Images built for development: how they mark what they attest, and the development channel (parent → enclave,
 * PORT_DEVELOPMENT), over which the parent replaces the app. No other image has either.
 */
import { EXIT_REASONS, type ExitReason } from "./control.ts";
import { type CloisterError, mismatch } from "./failure.ts";
import { encodeFrame, FrameDecoder } from "./frame.ts";
import { JsonNode } from "./json.ts";
import { concat } from "./struct.ts";

/**
 * The register that a development image extends by this text and locks before anything can replace its app. An app of
 * another image may use it too: what counts is the value.
 */
export const DEVELOPMENT_REGISTER = 31;
export const DEVELOPMENT_MARK = "cloister: built for development";
/** SHA384(48 zero bytes ‖ DEVELOPMENT_MARK). */
export const DEVELOPMENT_VALUE =
  "3b548a7acd235b6be2cad4b4d9e3d27f021a8ff6db76f484" + "c6725d63860c41fe48e9a0cf25c2a13f207b465e95af6353";

/** A file of the app, `path` relative to /app. */
export interface ReplacedFile {
  readonly path: string;
  readonly data: Uint8Array;
  readonly executable: boolean;
}

/** What the parent sends: the next generation of the app, by what differs from the one before. */
export interface Replacement {
  /** Counts up; the app in the image is 0. */
  readonly generation: number;
  readonly files: readonly ReplacedFile[];
  readonly removed: readonly string[];
}

/** What the enclave answers, of each generation. */
export type DevelopmentReport =
  /** It serves; `ports`: vsock. */
  | { readonly type: "serving"; readonly generation: number; readonly ports: readonly number[] }
  /** It ended. */
  | {
      readonly type: "ended";
      readonly generation: number;
      readonly status: number;
      readonly reason: ExitReason;
      /** Another one goes on serving in its place. */
      readonly replaced: boolean;
    };

/** Bounds of one replacement: bytes of its head, number of its files, bytes of all of them. Far beyond any bundle. */
const HEAD_MAX = 4 * 1024 * 1024;
const FILES_MAX = 65_536;
const DATA_MAX = 256 * 1024 * 1024;
const REPORT_MAX = 64 * 1024;
const PORT_MAX = 2 ** 32 - 2;

const encoder = new TextEncoder();

/** A frame of JSON that says what follows, then one frame a file. */
export function encodeReplacement({ generation, files, removed }: Replacement): Uint8Array {
  const head = { generation, files: files.map(({ path, executable }) => ({ path, executable })), removed };
  return concat([
    encodeFrame(encoder.encode(JSON.stringify(head))),
    ...files.map(({ data }) => encodeFrame(data)),
  ]);
}

export function encodeReport(report: DevelopmentReport): Uint8Array {
  return encodeFrame(encoder.encode(JSON.stringify(report)));
}

interface Head {
  readonly generation: number;
  readonly files: readonly Omit<ReplacedFile, "data">[];
  readonly removed: readonly string[];
}

/** Cuts a stream into replacements; it holds at most one unfinished one. */
export class ReplacementDecoder {
  readonly #frames = new FrameDecoder(DATA_MAX, "E_DEVELOPMENT");
  #head: Head | undefined;
  #files: ReplacedFile[] = [];
  #size = 0;

  /** Those that `chunk` completes. Throws E_DEVELOPMENT. */
  *push(chunk: Uint8Array): Generator<Replacement, void, undefined> {
    for (const frame of this.#frames.push(chunk)) {
      if (this.#head === undefined) this.#head = readHead(frame);
      else this.#add(this.#head, frame);
      const head: Head = this.#head;
      if (this.#files.length < head.files.length) continue;
      yield { ...head, files: this.#files };
      this.#head = undefined;
      this.#files = [];
      this.#size = 0;
    }
  }

  #add({ files }: Head, data: Uint8Array): void {
    this.#size += data.length;
    if (this.#size > DATA_MAX) throw tooMany(`files of ${this.#size} bytes`, DATA_MAX);
    this.#files.push({ ...(files[this.#files.length] as Head["files"][number]), data });
  }
}

function readHead(bytes: Uint8Array): Head {
  if (bytes.length > HEAD_MAX) throw tooMany(`a head of ${bytes.length} bytes`, HEAD_MAX);
  const node = JsonNode.parse("E_DEVELOPMENT", "replacement", bytes);
  const files = node.get("files").items();
  if (files.length > FILES_MAX) throw tooMany(`${files.length} files`, FILES_MAX);
  return {
    generation: node.get("generation").integer(0, Number.MAX_SAFE_INTEGER),
    files: files.map((file) => ({
      path: readPath(file.get("path")),
      executable: file.get("executable").boolean(),
    })),
    removed: node.get("removed").items().map(readPath),
  };
}

function tooMany(got: string, most: number): CloisterError {
  return mismatch("E_DEVELOPMENT", "replacement", got, `at most ${most}`);
}

/** A path that stays below /app. */
function readPath(node: JsonNode): string {
  const path = node.string();
  const isBelow = path.split("/").every((part) => part !== "" && part !== "." && part !== "..");
  if (isBelow && !path.includes("\0")) return path;
  throw node.wrong("a path below /app");
}

/** Cuts a stream into reports. */
export class ReportDecoder {
  readonly #frames = new FrameDecoder(REPORT_MAX, "E_DEVELOPMENT");

  /** Those that `chunk` completes. Throws E_DEVELOPMENT. */
  *push(chunk: Uint8Array): Generator<DevelopmentReport, void, undefined> {
    for (const frame of this.#frames.push(chunk)) yield readReport(frame);
  }
}

function readReport(bytes: Uint8Array): DevelopmentReport {
  const node = JsonNode.parse("E_DEVELOPMENT", "report", bytes);
  const type = node.get("type").choice(["serving", "ended"]);
  const generation = node.get("generation").integer(0, Number.MAX_SAFE_INTEGER);
  if (type === "serving") {
    const ports = node.get("ports").items();
    return { type, generation, ports: ports.map((port) => port.integer(1, PORT_MAX)) };
  }
  return {
    type,
    generation,
    status: node.get("status").integer(0, 255),
    reason: node.get("reason").choice(EXIT_REASONS),
    replaced: node.get("replaced").boolean(),
  };
}
