/** An enclave for tests: built, started and reached from one call. docs/testing.md is its guide. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { NsmOptions } from "../emulator/nsm/boot.ts";
import { CloisterError } from "../format/errors.ts";
import type { LocalEgress } from "../launcher/egress.ts";
import type { CloisterConfig } from "../packer/config.ts";
import { loadProject, type Project } from "../packer/project.ts";
import { type Authority, createAuthority } from "./test/authority.ts";
import { Faults } from "./test/fault.ts";
import { type EgressMocks, needsAuthority, serveMocks } from "./test/mock.ts";
import type { Start, StartMode } from "./test/running.ts";
import { Story } from "./test/story.ts";
import { TestEnclave } from "./test/subject.ts";

/** `vm`: an image in the emulator. `bare`: the app in a plain process. */
export type EnclaveMode = "vm" | "bare";

export interface EnclaveOptions {
  /** The project: where cloister.config.* and package.json are. Default: the working directory. */
  readonly directory?: string;
  /** Entry module, relative to `directory`; wins over the configuration. */
  readonly entry?: string;
  /** Fields that win over the configuration file's. They are measured, as the file's are. */
  readonly config?: CloisterConfig;
  /** An image that is built already, as a path or its bytes; in place of a project, and in a VM. */
  readonly eif?: string | Uint8Array;
  /** Default: CLOISTER_TEST_MODE of the environment, else "bare"; "vm" for an `eif`. */
  readonly mode?: EnclaveMode;
  readonly egress?: {
    /** What answers in place of destinations of the egress list. */
    readonly mocks?: EgressMocks;
    /** Destinations on this machine or its link, or elsewhere than their name leads. */
    readonly local?: readonly LocalEgress[];
  };
  readonly nsm?: NsmOptions;
  /** The clock of parent and hypervisor, Unix milliseconds. Default: this machine's. */
  readonly clock?: () => number;
  /** Ends it. */
  readonly signal?: AbortSignal;
  /** How long it may take until it is ready. Default: 120 s. Milliseconds. */
  readonly timeoutMs?: number;
}

const TIMEOUT_MS = 120_000;

/**
 * Start an enclave and give it back as it runs; `fetch` waits until it is ready. Rejects as `build` and `launch` do, with
 * E_CONFIG, E_BUNDLE and the like, with RangeError for options that make no sense, or with the signal's reason. Nothing is
 * left behind then.
 */
export async function createEnclave(options: EnclaveOptions = {}): Promise<TestEnclave> {
  const mode = chooseMode(options);
  await using stack = new AsyncDisposableStack();
  const folder = mkdtempSync(join(tmpdir(), "cloister-test-"));
  stack.defer(() => rmSync(folder, { recursive: true, force: true }));
  const faults = new Faults(options.clock ?? Date.now);
  const { project, authority } = await prepare(options, folder, faults);
  const { mocks = {}, local = [] } = options.egress ?? {};
  const servers = stack.use(await serveMocks(mocks, project?.config.egress, authority));
  const deadline = new Deadline(options);
  stack.defer(() => deadline.clear());
  const story = new Story();
  const start: Start = {
    ...{ options, project, folder, faults },
    local: [...servers.local, ...local],
    signal: deadline.signal,
    onEvent: (event) => story.hear(event),
  };
  const running = await (await modeOf(mode))(start);
  return new TestEnclave({ mode, running, story, faults, project, deadline, resources: stack.move() });
}

function chooseMode({ mode, eif }: EnclaveOptions): EnclaveMode {
  if (eif === undefined) return mode ?? environmentMode() ?? "bare";
  if (mode !== "bare") return "vm";
  throw new RangeError('mode: got "bare" for an eif, expected "vm"');
}

function environmentMode(): EnclaveMode | undefined {
  const { CLOISTER_TEST_MODE: mode = "" } = process.env;
  if (mode === "vm" || mode === "bare") return mode;
  if (mode === "") return undefined;
  throw new CloisterError("E_USAGE", `CLOISTER_TEST_MODE: got "${mode}", expected vm or bare`);
}

/** A mode that is not asked for is not loaded: the VM's needs Linux. */
async function modeOf(mode: EnclaveMode): Promise<StartMode> {
  if (mode === "bare") return (await import("./test/plain.ts")).startPlain;
  if (process.platform !== "linux") {
    throw new RangeError(`mode: got "vm" on ${process.platform}, expected "bare": the emulator needs Linux`);
  }
  return (await import("./test/machine.ts")).startMachine;
}

interface Prepared {
  /** Absent for an image. */
  readonly project: Project | undefined;
  readonly authority: Authority | undefined;
}

/** The project, with the authority of its mocks among those that it trusts. */
async function prepare(options: EnclaveOptions, folder: string, faults: Faults): Promise<Prepared> {
  const { directory = process.cwd(), entry, config, eif, egress } = options;
  const isNeeded = needsAuthority(egress?.mocks ?? {});
  if (eif !== undefined) {
    if (!isNeeded) return { project: undefined, authority: undefined };
    throw new RangeError(
      "egress.mocks: got a mock with TLS for an eif, whose authorities are measured; expected a project",
    );
  }
  const project = await loadProject({
    directory,
    ...(entry && { entry }),
    ...(config && { overrides: config }),
  });
  if (!isNeeded) return { project, authority: undefined };
  const authority = await createAuthority(faults.now());
  const file = join(folder, "authority.pem");
  writeFileSync(file, authority.certificate);
  const ca = [...project.config.ca, file];
  return { project: { ...project, config: { ...project.config, ca } }, authority };
}

/** Aborts when the caller does, or when it took too long to be ready. */
class Deadline {
  readonly signal: AbortSignal;
  readonly #timer: NodeJS.Timeout;

  constructor({ signal, timeoutMs = TIMEOUT_MS }: EnclaveOptions) {
    const late = new AbortController();
    this.signal = AbortSignal.any([late.signal, ...(signal ? [signal] : [])]);
    const error = () =>
      new CloisterError("E_NOT_READY", `enclave: got nothing for ${timeoutMs} ms, expected it ready`);
    this.#timer = setTimeout(() => late.abort(error()), timeoutMs);
  }

  /** It is ready. */
  clear(): void {
    clearTimeout(this.#timer);
  }
}
