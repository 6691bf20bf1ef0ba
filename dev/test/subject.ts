/** The enclave under test, in either mode. */
import { encodeProxyHeader } from "../../format/proxy.ts";
import { fingerprint } from "../../format/roots.ts";
import { toHex } from "../../format/struct.ts";
import type { VsockStream } from "../../launcher/device.ts";
import type { ExitReport } from "../../launcher/event.ts";
import type { LogEvent } from "../../launcher/logs.ts";
import type { Project } from "../../packer/project.ts";
import type { EnclaveMode } from "../enclave.ts";
import type { Faults } from "./fault.ts";
import { fetchOver } from "./fetch.ts";
import type { Running } from "./running.ts";
import type { Story } from "./story.ts";

const PORT_DEFAULT = 8080;
/** Where `fetch` of a path goes. */
const ORIGIN = "http://enclave";

/** PCR0 to PCR2 in hexadecimal, as `cloister build` prints them. */
export interface TestMeasurements {
  readonly PCR0: string;
  readonly PCR1: string;
  readonly PCR2: string;
}

export interface Subject {
  readonly mode: EnclaveMode;
  readonly running: Running;
  readonly story: Story;
  readonly faults: Faults;
  /** Absent for an image. */
  readonly project: Project | undefined;
  readonly deadline: { readonly signal: AbortSignal; clear(): void };
  /** Released at its end. */
  readonly resources: AsyncDisposableStack;
}

export class TestEnclave implements AsyncDisposable {
  readonly name: string;
  readonly mode: EnclaveMode;
  /** The app serves. Rejects with E_APP_ENDED or E_ENCLAVE_CRASHED when it ends before, with E_NOT_READY when it is late. */
  readonly ready: Promise<void>;
  /** How it ended. Never rejects. */
  readonly exited: Promise<ExitReport>;
  readonly measurements: TestMeasurements;
  /** The certificate, DER, under which its documents verify. */
  readonly attestationRoot: Uint8Array;
  readonly faults: Faults;
  readonly #subject: Subject;

  constructor(subject: Subject) {
    const { mode, running, faults, deadline, resources } = subject;
    const { pcr0, pcr1, pcr2 } = running.measurements;
    this.name = running.name;
    this.mode = mode;
    this.measurements = { PCR0: toHex(pcr0), PCR1: toHex(pcr1), PCR2: toHex(pcr2) };
    this.attestationRoot = running.attestationRoot;
    this.faults = faults;
    this.#subject = subject;
    this.ready = running.ready.then(
      () => deadline.clear(),
      (error: unknown) => {
        throw deadline.signal.aborted ? deadline.signal.reason : error;
      },
    );
    // Who does not ask whether it is ready hears of its end by `exited`.
    this.ready.catch(() => {});
    this.exited = running.exited.finally(() => resources.disposeAsync());
  }

  /**
   * What `verifyAttestation` of cloister/verify is to accept: `verifyAttestation(document, { ...await enclave.trust(), nonce })`.
   */
  async trust(): Promise<{
    readonly pcrs: { readonly [name: `PCR${number}`]: string };
    readonly roots: readonly string[];
    readonly now: number;
  }> {
    const { PCR0, PCR1, PCR2 } = this.measurements;
    const roots = [await fingerprint(this.attestationRoot)];
    return { pcrs: { PCR0, PCR1, PCR2 }, roots, now: this.faults.now() };
  }

  /**
   * Ask the app, once it is ready, on its first port, or on the port that the URL has: `fetch("/path")`,
   * `fetch("http://enclave:3000/")`. No TCP port is used, redirects are not followed, and a certificate of the app's is not
   * judged. Rejects as `ready` does, or with the connection's error.
   */
  async fetch(input: string | URL | Request, init?: RequestInit): Promise<Response> {
    await this.ready;
    const request =
      input instanceof Request ? new Request(input, init) : new Request(new URL(input, ORIGIN), init);
    const { port } = new URL(request.url);
    const { tls = false, proxyProtocol = false } = this.#subject.project?.config ?? {};
    const stream = await this.connect(port === "" ? this.#firstPort : Number(port));
    if (proxyProtocol) stream.write(encodeProxyHeader(undefined));
    return await fetchOver(stream, request, tls);
  }

  get #firstPort(): number {
    const { project, story } = this.#subject;
    const listening = story.ports;
    return project?.config.ports.find((port) => listening.includes(port)) ?? listening[0] ?? PORT_DEFAULT;
  }

  /** Connect to a vsock port of the enclave. Rejects ECONNRESET (nothing listens) or ETIMEDOUT. */
  connect(port: number, options?: { readonly timeoutMs?: number }): Promise<VsockStream> {
    return this.#subject.running.connect(port, options);
  }

  /** Log records so far: the latest some thousands. */
  get logs(): readonly LogEvent[] {
    return this.#subject.story.logs;
  }

  /** The first record so far, or else to come, whose text has `what`. Rejects when the enclave ended without. */
  waitForLog(what: string | RegExp): Promise<LogEvent> {
    return this.#subject.story.find(what);
  }

  /** All that it told, and the last lines of its machine's console: what to print when a test fails. */
  story(): string {
    const { story, running } = this.#subject;
    const console = running.console();
    return console === "" ? String(story) : `${story}\n--- console\n${console}`;
  }

  /** Ask the app to stop: it sees SIGTERM. After `deadlineMs` (default 10 s) it is killed. Resolves as `exited`. */
  stop(options?: { readonly deadlineMs?: number }): Promise<ExitReport> {
    return this.#subject.running.stop(options);
  }

  /** End it now, as a power cut. Resolves as `exited`. */
  terminate(): Promise<ExitReport> {
    return this.#subject.running.terminate();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.terminate();
    await this.exited;
  }
}
