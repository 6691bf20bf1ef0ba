import { StringDecoder } from "node:string_decoder";
import { CloisterError } from "../format/errors.ts";
import { LOG_LEVELS, type LogLevel } from "../format/log.ts";
import { awaitEnd } from "../launcher/client.ts";
import { followRing } from "../launcher/follow.ts";
import { type Entry, logPath, type Registry } from "../launcher/registry.ts";
import type { LogLine } from "../launcher/shelf.ts";
import { command, oneOperand } from "./command.ts";
import { jsonEvents, type Show, textEvents } from "./events.ts";
import { logLine } from "./logline.ts";
import { parseInteger } from "./operand.ts";
import { openRegistry } from "./order.ts";

const TAIL_MAX = 1_000_000;

export const logs = command({
  name: "logs",
  operands: "NAME|ID",
  options: {
    follow: { type: "boolean", short: "f", description: "Go on until the enclave ended" },
    tail: { type: "string", short: "n", value: "N", description: "Of the past, the last N records only" },
    level: {
      type: "string",
      value: "LEVEL",
      description: `Records of this level and above, and nothing else: ${LOG_LEVELS.join(", ")}`,
    },
    verbose: { type: "boolean", short: "v", description: "Boot phases and init's own messages too" },
    json: { type: "boolean", description: "Records as JSON lines, `time` and `at` in Unix milliseconds" },
  },
  examples: ["cloister logs app", "cloister logs -f -n 20 app", "cloister logs --level warn --json app"],
  async run(io, operands, { follow, tail, level, verbose, json }) {
    const registry = openRegistry(io);
    const entry = registry.find(oneOperand(logs, operands, "name or id"));
    const isShown = level === undefined ? () => true : atLeast(level);
    const isColored = io.stdout.isTTY === true && io.env.NO_COLOR === undefined;
    const show =
      json === true
        ? jsonEvents(io.stdout)
        : textEvents(io.stdout, verbose === true, (event) => logLine(event, isColored));
    const past = new Past(tail === undefined ? TAIL_MAX : parseInteger("--tail", tail, 0, TAIL_MAX), show);
    const over = follow === true ? endSignal(registry, entry, io.signal) : AbortSignal.abort();
    const decoder = new StringDecoder("utf8");
    let text = "";
    for await (const chunk of followRing(logPath(entry.folder), over, () => past.over())) {
      const lines = (text + decoder.write(chunk)).split("\n");
      text = lines.pop() ?? "";
      for (const line of lines.map((line) => JSON.parse(line) as LogLine)) if (isShown(line)) past.push(line);
    }
    return 0;
  },
});

function atLeast(level: string): (line: LogLine) => boolean {
  const least = LOG_LEVELS.indexOf(level as LogLevel);
  if (least < 0)
    throw new CloisterError("E_USAGE", `--level: got ${level}, expected ${LOG_LEVELS.join(" | ")}`);
  return (line) => line.type === "log" && LOG_LEVELS.indexOf(line.level) >= least;
}

/** Aborted when the enclave ended, or its supervisor, or the user has enough. */
export function endSignal(registry: Registry, entry: Entry, signal: AbortSignal): AbortSignal {
  const over = new AbortController();
  const end = () => over.abort();
  awaitEnd(registry, entry, signal).then(end, end);
  return over.signal;
}

/** Shows the last ones of the past, then everything. */
class Past {
  readonly #count: number;
  readonly #show: Show;
  #kept: LogLine[] | undefined = [];

  constructor(count: number, show: Show) {
    this.#count = count;
    this.#show = show;
  }

  push(line: LogLine): void {
    if (this.#kept === undefined) this.#show(line);
    else if (this.#kept.push(line) > this.#count) this.#kept.shift();
  }

  over(): void {
    for (const line of this.#kept ?? []) this.#show(line);
    this.#kept = undefined;
  }
}
