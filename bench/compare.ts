/** Ways to the same app side by side: what each takes of time, processor and memory. For inbound.ts and outbound.ts. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { median, table } from "./image.ts";
import type { Load, Way } from "./load.ts";

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

async function inOwnChild<T>(role: string, argument: unknown): Promise<T> {
  const { result, child } = await inChild<T>(role, argument);
  child.kill();
  return result;
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

/** user + system time, of waited-for children too: fields 14 to 17 of proc(5) stat. Seconds. */
function cpuSeconds(pids: readonly number[]): number {
  let ticks = 0;
  for (const pid of family(pids)) {
    try {
      const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
      for (const index of [11, 12, 13, 14]) ticks += Number(fields[index]);
    } catch {
      // As above.
    }
  }
  return ticks / TICKS_PER_SECOND;
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
    const cpu = cpuSeconds(pids);
    const load: Load = { ...http, connections, seconds };
    const result = await inOwnChild<{ perSecond: number; p50Ms: number; p99Ms: number }>("request", load);
    // Of the warm-up too, a second more.
    const used = ((cpuSeconds(pids) - cpu) * seconds) / (seconds + 1);
    return { ...result, cpuMicros: Math.round((used / (result.perSecond * seconds)) * 1e7) / 10 };
  };
}

function streams(way: "D" | "U", connections: number): Measure {
  return async ({ bytes, pids }, seconds) => {
    const cpu = cpuSeconds(pids);
    const megabytes = await inOwnChild<number>(way, { ...bytes, connections, seconds });
    const used = cpuSeconds(pids) - cpu;
    return {
      mbPerSecond: Math.round(megabytes / seconds),
      cpuSecondsPerGb: Math.round((used / megabytes) * 1e6) / 1e3,
    };
  };
}

const connects: Measure = async ({ bytes, pids }, seconds) => {
  const cpu = cpuSeconds(pids);
  const load: Load = { ...bytes, connections: 32, seconds };
  const result = await inOwnChild<{ perSecond: number; p50Ms: number; p99Ms: number }>("connects", load);
  const used = cpuSeconds(pids) - cpu;
  return { ...result, cpuMicros: Math.round((used / (result.perSecond * seconds)) * 1e6) };
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

/** The middle one of each number. */
function middle(rows: readonly Row[]): Row {
  const keys = Object.keys(rows[0] ?? {});
  return Object.fromEntries(keys.map((key) => [key, median(rows.map((row) => row[key] ?? 0))]));
}

export async function compare(targets: readonly Target[], rounds: number, seconds: number, only: string) {
  const results: Record<string, Record<string, Row>> = {};
  for (const [what, measure] of Object.entries(MEASURES)) {
    if (!what.includes(only)) continue;
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
