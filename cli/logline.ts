/** A log record as a person reads it. */
import { styleText } from "node:util";
import { jsonOfLine, type LogLevel } from "../format/log.ts";
import type { LogEvent } from "../launcher/logs.ts";
import { printable } from "./printable.ts";

const STYLES: Readonly<Record<LogLevel, Parameters<typeof styleText>[0]>> = {
  trace: "gray",
  debug: "gray",
  info: "green",
  warn: "yellow",
  error: "red",
  fatal: ["bold", "red"],
};

/** `2026-11-21T06:31:02.123Z info  listening {"port":8080}`: its columns line up. */
export function logLine({ time, level, source, text }: LogEvent, isColored: boolean): string {
  // The time is the enclave's own word, and no Date holds more (ECMA-262 §21.4.1.1).
  const when = new Date(Math.min(time, 8.64e15)).toISOString();
  const shown = level.padEnd(5);
  const column = isColored ? styleText(STYLES[level], shown, { validateStream: false }) : shown;
  return `${when} ${column} ${source === "init" ? "init: " : ""}${printable(bodyOf(text))}`;
}

/** Of JSON the message, then what the columns do not show already. */
function bodyOf(text: string): string {
  const json = jsonOfLine(text);
  if (json === undefined) return text;
  const { level, severity, time, timestamp, ...said } = json;
  const key = ["msg", "message"].find((name) => typeof said[name] === "string");
  if (key === undefined) return text;
  const { [key]: message, ...rest } = said;
  return Object.keys(rest).length === 0 ? String(message) : `${message} ${JSON.stringify(rest)}`;
}
