/** What a line of output means: its level, and the JSON object that it may be. */
import { isObject, type JsonObject } from "./json.ts";

/** From the least to the most urgent. */
export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export const LOG_SOURCES = ["stdout", "stderr", "init"] as const;
export type LogSource = (typeof LOG_SOURCES)[number];

/** Names of levels that are not ours: syslog (RFC 5424 §6.2.1), Google Cloud's LogSeverity, npm's levels (winston). */
const SYNONYMS: ReadonlyMap<string, LogLevel> = new Map([
  ...LOG_LEVELS.map((level): [string, LogLevel] => [level, level]),
  ["silly", "trace"],
  ["verbose", "debug"],
  ["http", "info"],
  ["notice", "info"],
  ["warning", "warn"],
  ["err", "error"],
  ["crit", "fatal"],
  ["critical", "fatal"],
  ["alert", "fatal"],
  ["emerg", "fatal"],
  ["emergency", "fatal"],
  ["panic", "fatal"],
]);

/** The object that a line is, as loggers write them; undefined for any other line. */
export function jsonOfLine(line: string): JsonObject | undefined {
  if (!/^\s*\{/.test(line)) return undefined;
  try {
    const value: unknown = JSON.parse(line);
    return isObject(value) ? value : undefined;
  } catch {
    // SyntaxError: a line that begins like an object.
    return undefined;
  }
}

/**
 * A record's own level: `level` as a name or as pino's and bunyan's number (10 is trace, 60 fatal), else `severity`.
 * Undefined where it has none that is known.
 */
export function levelOfJson({ level, severity }: JsonObject): LogLevel | undefined {
  return levelOf(level) ?? levelOf(severity);
}

function levelOf(value: unknown): LogLevel | undefined {
  if (typeof value === "string") return SYNONYMS.get(value.toLowerCase());
  if (typeof value !== "number") return undefined;
  return LOG_LEVELS[Math.min(Math.max(Math.floor(value / 10) - 1, 0), LOG_LEVELS.length - 1)];
}

/** Where a line says nothing of its level. Node writes console.warn and console.error to the same descriptor. */
export function levelOfSource(source: LogSource): LogLevel {
  return source === "stderr" ? "error" : "info";
}
