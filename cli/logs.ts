import { StringDecoder } from "node:string_decoder";
import { awaitEnd } from "../launcher/client.ts";
import { followRing } from "../launcher/follow.ts";
import { type Entry, logPath, type Registry } from "../launcher/registry.ts";
import type { LogLine } from "../launcher/shelf.ts";
import { command, oneOperand } from "./command.ts";
import { jsonEvents, type Show, textEvents } from "./events.ts";
import { parseInteger } from "./operand.ts";
import { openRegistry } from "./order.ts";

const TAIL_MAX = 1_000_000;

export const logs = command({
  name: "logs",
  operands: "NAME|ID",
  options: {
    follow: { type: "boolean", short: "f", description: "Go on until the enclave ended" },
    tail: { type: "string", short: "n", value: "N", description: "Of the past, the last N records only" },
    verbose: { type: "boolean", short: "v", description: "Boot phases and init's own messages too" },
    json: { type: "boolean", description: "Records as JSON lines, `at` in Unix milliseconds" },
  },
  examples: ["cloister logs app", "cloister logs -f -n 20 app"],
  async run(io, operands, { follow, tail, verbose, json }) {
    const registry = openRegistry(io);
    const entry = registry.find(oneOperand(logs, operands, "name or id"));
    const show = json === true ? jsonEvents(io.stdout) : textEvents(io.stdout, verbose === true);
    const past = new Past(tail === undefined ? TAIL_MAX : parseInteger("--tail", tail, 0, TAIL_MAX), show);
    const over = follow === true ? endSignal(registry, entry, io.signal) : AbortSignal.abort();
    const decoder = new StringDecoder("utf8");
    let text = "";
    for await (const chunk of followRing(logPath(entry.folder), over, () => past.over())) {
      const lines = (text + decoder.write(chunk)).split("\n");
      text = lines.pop() ?? "";
      for (const line of lines) past.push(JSON.parse(line) as LogLine);
    }
    return 0;
  },
});

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
