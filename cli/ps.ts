import { askHealth } from "../launcher/client.ts";
import type { HealthReport } from "../launcher/health.ts";
import type { EnclaveRecord, EnclaveState } from "../launcher/record.ts";
import { command, type Io } from "./command.ts";
import { openRegistry } from "./order.ts";
import { outcomeText } from "./outcome.ts";
import { describeJson, healthJson, ownJson } from "./summary.ts";

export const ps = command({
  name: "ps",
  operands: "",
  options: {
    all: { type: "boolean", short: "a", description: "Those that ended too" },
    prune: { type: "boolean", description: "Forget those that ended, then list" },
    quiet: { type: "boolean", short: "q", description: "Names only, a line each" },
    json: { type: "boolean", description: "A list with nitro-cli describe-enclaves' keys" },
  },
  examples: ["cloister ps", "cloister ps -a --json | jq -r '.[].EnclaveName'", "cloister ps --prune"],
  async run(io, _operands, { all, prune, quiet, json }) {
    const registry = openRegistry(io);
    if (prune === true) {
      for (const { record } of registry.list())
        registry.remove(record.name, ({ state }) => state === "ended");
    }
    const entries = registry.list().filter(({ record }) => all === true || record.state !== "ended");
    if (quiet === true) {
      for (const { record } of entries) io.stdout.write(`${record.name}\n`);
      return 0;
    }
    const rows = await Promise.all(
      entries.map(async (entry): Promise<Row> => ({ record: entry.record, health: await askHealth(entry) })),
    );
    if (json === true) {
      const values = rows.map(({ record, health }) => ({
        ...describeJson(record),
        ...ownJson(record),
        ...healthJson(health),
      }));
      io.stdout.write(`${JSON.stringify(values, null, 2)}\n`);
    } else showTable(io, rows);
    return 0;
  },
});

interface Row {
  readonly record: EnclaveRecord;
  readonly health: HealthReport | undefined;
}

function showTable(io: Io, rows: readonly Row[]): void {
  const lines = [["NAME", "CID", "CPUS", "MEMORY", "UP", "PORTS", "STATE"], ...rows.map(cellsOf)];
  const widths =
    lines[0]?.map((_, column) => Math.max(...lines.map((cells) => cells[column]?.length ?? 0))) ?? [];
  for (const cells of lines) {
    io.stdout.write(
      `${cells
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd()}\n`,
    );
  }
}

function cellsOf({ record, health }: Row): string[] {
  const { name, cid, cpuIds, memoryMiB, published = [], createdAt, end, state } = record;
  const ports = published.map(({ address, port, vsockPort }) => `${address}:${port}→${vsockPort}`).join(" ");
  const text = end === undefined ? stateText(state, health) : outcomeText(end);
  return [
    name,
    String(cid ?? "-"),
    String(cpuIds?.length ?? "-"),
    memoryMiB === undefined ? "-" : `${memoryMiB}M`,
    duration((end?.at ?? Date.now()) - createdAt),
    ports || "-",
    record.restarts > 0 ? `${text}, restarted ${record.restarts}×` : text,
  ];
}

/** The record's state, unless whoever looks at it all the time knows better. */
export function stateText(state: EnclaveState, health: HealthReport | undefined): string {
  switch (health?.condition) {
    case "booting":
      return "running, not ready";
    case "stalled":
    case "silent":
      return `${health.condition} ${duration(health.forMs)}`;
    case "ready":
      return "running";
    default:
      return health?.condition ?? state;
  }
}

/** The two largest units. */
function duration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  const parts: [number, string][] = [
    [Math.floor(seconds / 86_400), "d"],
    [Math.floor(seconds / 3600) % 24, "h"],
    [Math.floor(seconds / 60) % 60, "m"],
    [seconds % 60, "s"],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  const shown = first < 0 ? parts.slice(-1) : parts.slice(first, first + 2);
  return shown.map(([count, unit]) => `${count}${unit}`).join("");
}
