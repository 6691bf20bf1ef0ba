/** What the run directory says of one enclave: `state.json` in a directory of its name. */
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { CloisterError } from "../format/errors.ts";
import type { ExitReport } from "./event.ts";
import { isAlive, type ProcessIdentity } from "./identity.ts";
import type { Published } from "./publish.ts";

/** Changes when the fields do: releases may share a run directory. */
const FORMAT = 1;

export type EnclaveState = "starting" | "running" | "stopping" | "restarting" | "ended";

/** Who asked for the end: a command, or the machine that shuts down (SIGTERM to the supervisor). */
export type EndedBy = "stop" | "terminate" | "shutdown";

/** An error as it crosses processes. */
export interface ErrorRecord {
  readonly code: string;
  readonly message: string;
  readonly details?: string;
  readonly fix?: string;
}

/** How it ended for good. `error`: a launch that failed, the first or a later one. */
export type EnclaveEnd = {
  /** Unix milliseconds. */
  readonly at: number;
  readonly by?: EndedBy;
} & ({ readonly report: ExitReport } | { readonly error: ErrorRecord });

export interface EnclaveRecord {
  readonly format: typeof FORMAT;
  readonly name: string;
  readonly supervisor: ProcessIdentity;
  /** Absolute path. */
  readonly eif: string;
  readonly emulated: boolean;
  readonly debug: boolean;
  readonly state: EnclaveState;
  /** Unix milliseconds. */
  readonly createdAt: number;
  readonly restarts: number;
  /** From its first heartbeat on. */
  readonly id?: string;
  readonly cid?: number;
  readonly memoryMiB?: number;
  readonly cpuIds?: readonly number[];
  readonly published?: readonly Published[];
  /** Where probes and metrics are answered. */
  readonly health?: { readonly address: string; readonly port: number };
  readonly end?: EnclaveEnd;
}

export type NewRecord = Pick<EnclaveRecord, "eif" | "emulated" | "debug">;

const FILE = "state.json";
const NEXT = "state.next";

export function newRecord(name: string, supervisor: ProcessIdentity, fields: NewRecord): EnclaveRecord {
  return {
    format: FORMAT,
    name,
    supervisor,
    ...fields,
    state: "starting",
    createdAt: Date.now(),
    restarts: 0,
  };
}

/** Atomic: a reader sees the old record or the new one. Throws Node's file system errors, with the old record kept. */
export function writeRecord(folder: string, record: EnclaveRecord): void {
  const next = join(folder, NEXT);
  try {
    writeFileSync(next, JSON.stringify(record, null, 2), { mode: 0o600 });
    renameSync(next, join(folder, FILE));
  } catch (error) {
    rmSync(next, { force: true });
    throw error;
  }
}

/** Undefined where there is none: its writer died before it was whole. Throws E_RUN_DIRECTORY for another release's. */
export function readRecord(folder: string): EnclaveRecord | undefined {
  let text: string;
  try {
    text = readFileSync(join(folder, FILE), "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw error;
  }
  const record = JSON.parse(text) as EnclaveRecord;
  if (record.format === FORMAT) return record;
  const message = `${join(folder, FILE)}: got format ${record.format}, expected ${FORMAT}`;
  throw new CloisterError("E_RUN_DIRECTORY", message, {
    fix: "Use the release of cloister that started the enclave, or another CLOISTER_RUN_DIR.",
  });
}

/** Its supervisor died without saying how the enclave ended: nothing runs of it any more. */
export function isStale({ state, supervisor }: EnclaveRecord): boolean {
  return state !== "ended" && !isAlive(supervisor);
}
