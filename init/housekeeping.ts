/**
 * The housekeeping thread: the control channel, and the app's output from the pipes behind descriptors 1 and 2. It is a
 * thread of its own so that an app which blocks its event loop still logs, and still obeys a shutdown at its deadline.
 */
import { readSync } from "node:fs";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { parentPort, workerData } from "node:worker_threads";
import { CID_PARENT, PORT_CONTROL } from "../format/abi.ts";
import type { ExitReason, ParentMessage } from "../format/control.ts";
import type { LogLevel, LogSource } from "../format/log.ts";
import { uptimeMs } from "../linux/clock.ts";
import { restartMachine } from "../linux/reboot.ts";
import { openStream } from "../linux/stream.ts";
import { connectVsock } from "../linux/vsock.ts";
import { Tally } from "../runtime/tally.ts";
import { GivingUp } from "./abort.ts";
import { ControlChannel } from "./channel.ts";
import { writeConsole } from "./console.ts";
import { STATUS_ABORTED } from "./ending.ts";
import { Journal, type JournalOutput } from "./journal.ts";
import { type HousekeepingData, type HousekeepingMessage, REPORT_DEADLINE_MS } from "./message.ts";
import { Pulse } from "./pulse.ts";
import { RecordRing } from "./records.ts";
import { StallWatch } from "./stall.ts";
import { openEnclaveClock } from "./time/enclave.ts";
import { readVitals } from "./vitals.ts";

/** Log records that wait for the parent, bytes: what an enclave of 192 MiB can spare. */
const RING_BYTES = 2 * 1024 * 1024;
const CONTROL_TIMEOUT_MS = 2_000;
/** 128 + SIGKILL, as a shell reports it. */
const STATUS_KILLED = 137;
const TIMER_MAX_MS = 2 ** 31 - 1;
/** How often the app's thread is looked after, and how often the parent hears how the enclave does. */
const WATCH_INTERVAL_MS = 500;
const STATS_INTERVAL_MS = 5_000;

const data = workerData as HousekeepingData;
const ring = new RecordRing(RING_BYTES);
const journal = new Journal({ ring, redact: data.redact, onLine: showOnConsole });
const pulse = new Pulse(data.pulse);
const stall = new StallWatch(say);
const givingUp = new GivingUp(data.givingUp);
const channel = new ControlChannel({
  hello: data.hello,
  ring,
  connect: () => connectVsock({ cid: CID_PARENT, port: PORT_CONTROL, timeoutMs: CONTROL_TIMEOUT_MS }),
  onMessage: obey,
  onFirstConnect: () => channel.tell({ type: "phase", phase: "control", uptimeMs: uptimeMs() }),
});
const { clock, keeper } = openEnclaveClock({ ask: (sentMs) => channel.send({ type: "clock", sentMs }), say });
const outputs = [follow("stdout", data.stdout), follow("stderr", data.stderr)];
const vitals = { pulse, tally: new Tally(data.tally), ring, clock, stalledMs };
let killer: NodeJS.Timeout | undefined;
let reporting = false;

parentPort?.on("message", (message: HousekeepingMessage) => {
  switch (message.type) {
    case "tell":
      channel.tell(message.message);
      if (message.message.type === "ready") tellVitals();
      break;
    case "say":
      say(message.text);
      break;
    case "end":
      // Once the kill has begun the app's own end comes too late: the exit report says "killed".
      if (!reporting) void report(message.status, message.reason);
  }
});
void keepTime();
setInterval(watch, WATCH_INTERVAL_MS).unref();
setInterval(tellVitals, STATS_INTERVAL_MS).unref();

async function keepTime(): Promise<void> {
  await keeper.boot(channel.open());
  Atomics.store(data.clockIsSet, 0, 1);
  Atomics.notify(data.clockIsSet, 0);
  keeper.keep();
}

interface Output {
  readonly fd: number;
  readonly stream: Readable;
  readonly output: JournalOutput;
}

function follow(source: "stdout" | "stderr", fd: number): Output {
  const output = journal.output(source);
  const stream = openStream(fd, { writable: false });
  stream.on("data", (chunk: Buffer) => {
    output.push(chunk);
    channel.pump();
  });
  return { fd, stream, output };
}

/** A line of init's own. */
function say(text: string, level: LogLevel = "info"): void {
  journal.say(text, level);
  channel.pump();
}

/** The console belongs to the parent: in production mode it must learn nothing of the app there. */
function showOnConsole(source: LogSource, text: string): void {
  if (data.debug || source === "init") writeConsole(data.console, source === "init" ? `init: ${text}` : text);
}

function tellVitals(): void {
  channel.offer({ type: "stats", stats: readVitals(vitals) });
}

function stalledMs(): number {
  return stall.check(uptimeMs(), pulse.beatMs);
}

/** The app's thread: does its event loop turn, has Node given up? */
function watch(): void {
  if (reporting) return;
  if (givingUp.check(stalledMs() > 0)) void end(STATUS_ABORTED, "abort");
}

function obey(message: ParentMessage): void {
  if (message.type === "shutdown" && killer === undefined) {
    killer = setTimeout(kill, Math.min(message.deadlineMs, TIMER_MAX_MS));
    process.kill(process.pid, "SIGTERM");
  }
  if (message.type === "time") keeper.answer(message);
}

/** The app did not end in time; its thread may be blocked, so this one ends the enclave. */
async function kill(): Promise<void> {
  if (reporting) return;
  journal.say("the app did not end before the shutdown deadline", "warn");
  await end(STATUS_KILLED, "killed");
}

/** End the enclave from this thread. */
async function end(status: number, reason: ExitReason): Promise<void> {
  await report(status, reason);
  restartMachine();
}

async function report(status: number, reason: ExitReason): Promise<void> {
  reporting = true;
  for (const output of outputs) drain(output);
  tellVitals();
  const message = { type: "exit", status, reason, lastWords: journal.lastWords.lines() } as const;
  await Promise.race([channel.finish(message), sleep(REPORT_DEADLINE_MS)]);
  Atomics.store(data.reported, 0, 1);
  Atomics.notify(data.reported, 0);
}

/** As much as a pipe holds: pipe(7), "Pipe capacity". */
const PIPE_BYTES = 64 * 1024;

/**
 * Take what is in the pipe now, and nothing after it: a child of the app may hold its other end open for good, and an app that
 * is killed may write for ever.
 */
function drain({ fd, stream, output }: Output): void {
  stream.pause();
  const chunk = Buffer.alloc(PIPE_BYTES);
  for (let left = chunk.length, n = 1; n > 0 && left > 0 && !stream.destroyed; left -= n) {
    n = readNow(fd, chunk.subarray(0, left));
    output.push(chunk.subarray(0, n));
  }
  output.end();
}

/** How many bytes; 0: nobody writes any more, or nothing is there yet. */
function readNow(fd: number, into: Buffer): number {
  try {
    return readSync(fd, into);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EAGAIN") return 0;
    throw error;
  }
}
