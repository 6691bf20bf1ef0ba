/** Ways to the same app side by side: what each takes of time, processor and memory. For inbound.ts and outbound.ts. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { median, table } from "./image.ts";
import type { Latency, Load, Way } from "./load.ts";

const CONNECTIONS = [1, 100, 1000];
/** sysconf(_SC_CLK_TCK), the unit of /proc/pid/stat on every Linux that runs Node. */
const TICKS_PER_SECOND = 100;
const ROLES = fileURLToPath(new URL("role.ts", import.meta.url));

/** Ways to the app: HTTP, and bytes without end. */
export interface Ways {
  readonly http: Way;
  readonly bytes: Way;
}

export interface Target extends Ways {
  readonly name: string;
  /** Of the relay; their children are counted too. */
  readonly pids: readonly number[];
  stop(): void;
}

/** A child process of a script here, which does `role` and sends what came of it. */
export async function inChild<T>(
  role: string,
  argument: unknown,
  script = ROLES,
): Promise<{ result: T; child: ChildProcess }> {
  const child = fork(script, ["--role", role, JSON.stringify(argument)]);
  const died = once(child, "exit").then(([code]) => {
    throw new Error(`${script} ${role} ended before it said anything: ${code}`);
  });
  died.catch(() => {});
  const [result] = (await Promise.race([once(child, "message"), died])) as [T];
  return { result, child };
}

interface Used<T> {
  readonly result: T;
  /** Of the relay meanwhile. */
  readonly cpu: number;
}

/**
 * A client in a child, and what the relay used of the processor, seconds. It is read while the client's connections stand: a
 * relay with a process for each takes what they used along when they end.
 */
async function inOwnChild<T>(role: string, argument: unknown, pids: readonly number[]): Promise<Used<T>> {
  const before = cpuSeconds(pids);
  const { result, child } = await inChild<T>(role, argument);
  const cpu = cpuSeconds(pids) - before;
  child.kill();
  await once(child, "exit");
  return { result, cpu };
}

// ------------------------------------------------------------------ measuring

/** Processes and their descendants, by /proc/PID/task/PID/children (proc(5)). */
function family(pids: readonly number[]): number[] {
  return pids.flatMap((pid) => {
    try {
      const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
      return [pid, ...(children === "" ? [] : family(children.split(" ").map(Number)))];
    } catch {
      // ENOENT, ESRCH: ended meanwhile.
      return [];
    }
  });
}

/** Time of a process's threads on a processor, seconds: Documentation/scheduler/sched-stats.rst, /proc/PID/schedstat. */
function ownSeconds(pid: number): number {
  const tasks = readdirSync(`/proc/${pid}/task`);
  const nanoseconds = tasks.map((task) =>
    Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, "utf8").split(" ")[0]),
  );
  return nanoseconds.reduce((sum, time) => sum + time, 0) / 1e9;
}

/** Of children that were waited for: fields 16 and 17 of proc(5) stat. Of each that lives it would be rounded to 10 ms. */
function childrenSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[13]) + Number(fields[14])) / TICKS_PER_SECOND;
}

/** Processor time of processes and their descendants, seconds. */
function cpuSeconds(pids: readonly number[]): number {
  let seconds = 0;
  for (const pid of family(pids)) {
    try {
      seconds += ownSeconds(pid) + childrenSeconds(pid);
    } catch {
      // As above.
    }
  }
  return seconds;
}

/** Proportional set size, KiB: shared pages count once. */
function memoryKib(pids: readonly number[]): number {
  return family(pids).reduce((sum, pid) => {
    const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
    return sum + Number(/^Pss:\s+(\d+)/m.exec(text)?.[1] ?? 0);
  }, 0);
}

type Row = Readonly<Record<string, number>>;
type Measure = (target: Target, seconds: number) => Promise<Row>;

function requests(connections: number): Measure {
  return async ({ http, pids }, seconds) => {
    const load: Load = { ...http, connections, seconds };
    const { result, cpu } = await inOwnChild<Latency>("request", load, pids);
    // Of the warm-up too, a second more.
    const used = (cpu * seconds) / (seconds + 1);
    return { ...result, cpuMicros: Math.round((used / (result.perSecond * seconds)) * 1e7) / 10 };
  };
}

function streams(way: "D" | "U", connections: number): Measure {
  return async ({ bytes, pids }, seconds) => {
    const load: Load = { ...bytes, connections, seconds };
    const { result: megabytes, cpu } = await inOwnChild<number>(way, load, pids);
    return {
      mbPerSecond: Math.round(megabytes / seconds),
      cpuSecondsPerGb: Math.round((cpu / megabytes) * 1e6) / 1e3,
    };
  };
}

const connects: Measure = async ({ bytes, pids }, seconds) => {
  const load: Load = { ...bytes, connections: 32, seconds };
  const { result, cpu } = await inOwnChild<Latency>("connects", load, pids);
  return { ...result, cpuMicros: Math.round((cpu / (result.perSecond * seconds)) * 1e6) };
};

const idle: Measure = async ({ bytes, pids }) => {
  const connections = 1000;
  const before = memoryKib(pids);
  const { child } = await inChild<number>("hold", { ...bytes, connections, seconds: 0 });
  const kib = (memoryKib(pids) - before) / connections;
  child.kill();
  await once(child, "exit");
  return { kibPerConnection: Math.round(kib * 10) / 10 };
};

const MEASURES: Readonly<Record<string, Measure>> = {
  ...Object.fromEntries(CONNECTIONS.map((count) => [`requests, ${count} connections`, requests(count)])),
  "throughput to the client, 1 connection": streams("D", 1),
  "throughput to the app, 1 connection": streams("U", 1),
  "throughput to the client, 100 connections": streams("D", 100),
  "throughput to the app, 100 connections": streams("U", 100),
  "connect, 1 byte there and back, close": connects,
  "memory of 1,000 idle connections": idle,
};

/** In seconds, not minutes: whether something is badly wrong. */
const QUICK: readonly string[] = [
  "requests, 100 connections",
  "throughput to the app, 1 connection",
  "connect, 1 byte there and back, close",
];

/** How long, how often, and what. */
export interface Extent {
  readonly rounds: number;
  readonly seconds: number;
  /** What is measured has this in its name. */
  readonly only: string;
  readonly quick: boolean;
}

/** Options of the scripts. */
export const OPTIONS = {
  role: { type: "string" },
  rounds: { type: "string", default: "3" },
  seconds: { type: "string", default: "4" },
  only: { type: "string", default: "" },
  quick: { type: "boolean", default: false },
  vm: { type: "boolean", default: false },
} as const;

type Given = {
  readonly rounds: string;
  readonly seconds: string;
  readonly only: string;
  readonly quick: boolean;
};

export function extentOf({ rounds, seconds, only, quick }: Given): Extent {
  if (quick) return { rounds: 1, seconds: 1, only, quick };
  return { rounds: Number(rounds), seconds: Number(seconds), only, quick };
}

/** The middle one of each number. */
function middle(rows: readonly Row[]): Row {
  const keys = Object.keys(rows[0] ?? {});
  return Object.fromEntries(keys.map((key) => [key, median(rows.map((row) => row[key] ?? 0))]));
}

export async function compare(targets: readonly Target[], { rounds, seconds, only, quick }: Extent) {
  const results: Record<string, Record<string, Row>> = {};
  for (const [what, measure] of Object.entries(MEASURES)) {
    if (!what.includes(only) || (quick && !QUICK.includes(what))) continue;
    const rows = new Map<string, Row[]>();
    for (let round = 0; round < rounds; round++) {
      for (const target of targets) {
        rows.set(target.name, [...(rows.get(target.name) ?? []), await measure(target, seconds)]);
      }
    }
    const summary = Object.fromEntries([...rows].map(([name, list]) => [name, middle(list)]));
    console.error(
      `\n${what}\n${table(Object.entries(summary).map(([server, row]) => ({ server, ...row })))}`,
    );
    results[what] = summary;
  }
  return results;
}
