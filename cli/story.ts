/** What the dev loop tells, as lines of text or of JSON. */
import { relative } from "node:path";
import { inspect, styleText } from "node:util";
import type { LoopEvent } from "../dev/event.ts";
import { PORT_INSPECTOR } from "../format/abi.ts";
import type { BootPhase } from "../format/control.ts";
import { CloisterError } from "../format/errors.ts";
import type { Io } from "./command.ts";
import { printable } from "./printable.ts";
import { errorText } from "./report.ts";

export type Tell = (event: LoopEvent) => void;

/** One JSON value a line; an error has its code, message and details. */
export function jsonStory(io: Io): Tell {
  return (event) => {
    const shown = event.type === "failed" ? { ...event, error: errorJson(event.error) } : event;
    io.stdout.write(`${JSON.stringify(shown)}\n`);
  };
}

function errorJson(error: unknown): object {
  if (!(error instanceof CloisterError)) return { code: "E_INTERNAL", message: String(error) };
  const { code, message, details } = error;
  return { code, message, ...(details !== undefined && { details }) };
}

const seconds = (ms: number) => (ms < 995 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`);

/** What its author can do about it, where the app said nothing itself. */
function endHint(status: number, reason: string): string | undefined {
  if (reason === "return") {
    return "nothing kept it running: it has no default export with a function named fetch, and no server listens";
  }
  if (reason === "exit" && status !== 0) return "it called process.exit()";
  if (STATUSES_OUT_OF_MEMORY.includes(status)) {
    return 'memory ran out, most likely: cloister.config.ts sets how much there is, such as memory: "512M"';
  }
  return undefined;
}

/** SIGKILL by the kernel, SIGABRT by Node when its heap is full. */
const STATUSES_OUT_OF_MEMORY: readonly number[] = [137, 134];

/** Lines for a person, in the order in which things happen. */
export class TextStory {
  readonly #io: Io;
  readonly #isQuiet: boolean;
  readonly #phases = new Map<BootPhase, number>();
  #changed = "";
  #isBooting = false;
  #isMeasured = false;

  /** `isQuiet`: lines of the app, errors and ends alone. */
  constructor(io: Io, isQuiet: boolean) {
    this.#io = io;
    this.#isQuiet = isQuiet;
  }

  tell(event: LoopEvent): void {
    switch (event.type) {
      case "log":
        this.#tellLog(event);
        break;
      case "build":
        this.#changed = event.changed.map((path) => relative(this.#io.directory, path)).join(", ");
        break;
      case "unchanged":
        this.#note(`${this.#changed} saved: nothing that runs differs`);
        break;
      case "failed":
        this.#fail(event.error);
        break;
      case "warning":
        this.#line(`${this.#paint("yellow", "warning")}: ${event.text}`);
        break;
      case "start":
        this.#phases.clear();
        this.#isBooting = true;
        this.#isMeasured = false;
        this.#note(`starting an enclave: ${event.reason}`);
        break;
      case "measured":
        this.#tellMeasured({ ...event.measurements });
        break;
      case "published":
        for (const port of event.ports) this.#tellPort(port, event.tls ? "https" : "http");
        break;
      case "phase":
        this.#phases.set(event.phase, event.uptimeMs);
        break;
      case "serving":
        this.#tellServing(event);
        break;
      case "ended":
        this.#tellEnd(event);
        break;
      case "unwatched":
        this.say(
          `${relative(this.#io.directory, event.folder) || "."} cannot be watched (${event.code}): press b after a save there`,
        );
        break;
      case "fault":
      case "egress":
      case "publish":
        this.say(printable(event.reason));
        break;
      case "exit":
        if (event.report.kind === "crash") this.#tellCrash(event.report.console);
    }
  }

  /** A line of the loop's own. */
  say(text: string): void {
    this.#line(`${this.#paint("cyan", "cloister")}: ${text}`);
  }

  #tellCrash(console: string): void {
    const lines = console.trimEnd().split("\n").map(printable);
    this.say(["the enclave crashed; its console:", ...lines].join("\n  "));
  }

  /** Once a machine: without one they change with every save. */
  #tellMeasured(measurements: Readonly<Record<string, string>>): void {
    if (this.#isMeasured) return;
    this.#isMeasured = true;
    for (const [name, value] of Object.entries(measurements)) this.#note(`${name} ${value}`);
  }

  #tellLog({ source, text, dropped }: Extract<LoopEvent, { type: "log" }>): void {
    if (dropped > 0) this.say(`${dropped} log records were dropped here`);
    if (source !== "init") this.#line(printable(text));
    // Before that, init speaks of the machine's boot.
    else if (this.#phases.has("app")) this.#note(printable(text));
  }

  #note(text: string): void {
    if (!this.#isQuiet) this.say(text);
  }

  #fail(error: unknown): void {
    const known =
      error instanceof CloisterError
        ? error
        : new CloisterError("E_INTERNAL", inspect(error), { cause: error });
    this.#io.stdout.write(errorText(known, this.#isColored));
    this.say("waiting for the next save");
  }

  #tellPort(
    { address, port, vsockPort, taken }: Extract<LoopEvent, { type: "published" }>["ports"][number],
    scheme: string,
  ): void {
    const host = address.includes(":") ? `[${address}]` : address;
    if (vsockPort === PORT_INSPECTOR) {
      this.#note(`inspector at ${host}:${port}: open chrome://inspect, or attach an editor to it`);
      return;
    }
    if (taken !== undefined) this.say(`${host}:${taken} is taken by another program: a free port instead`);
    this.#note(`${this.#paint("bold", `${scheme}://${host}:${port}/`)} → vsock port ${vsockPort}`);
  }

  #tellServing({ bundleMs, elapsedMs }: Extract<LoopEvent, { type: "serving" }>): void {
    const times = `after ${seconds(elapsedMs)}, ${seconds(bundleMs)} of it to build`;
    if (this.#isBooting && this.#phases.size > 0) {
      const phases = [...this.#phases].map(([phase, uptimeMs]) => `${phase} ${seconds(uptimeMs)}`);
      this.#note(`boot: ${phases.join(" · ")}`);
    }
    this.#isBooting = false;
    this.#note(this.#changed === "" ? `serving ${times}` : `${this.#changed} changed: serving ${times}`);
  }

  #tellEnd({ status, reason, replaced }: Extract<LoopEvent, { type: "ended" }>): void {
    const then = replaced ? "the one before serves on" : "waiting for the next save";
    this.say(`${this.#paint("red", "the app ended")}: exit status ${status} (${reason}); ${then}`);
    const hint = endHint(status, reason);
    if (hint !== undefined) this.say(hint);
  }

  #line(text: string): void {
    this.#io.stdout.write(`${text}\n`);
  }

  get #isColored(): boolean {
    return this.#io.stdout.isTTY === true && this.#io.env.NO_COLOR === undefined;
  }

  #paint(style: "red" | "dim" | "bold" | "cyan" | "yellow", text: string): string {
    return this.#isColored ? styleText(style, text, { validateStream: false }) : text;
  }
}
