/**
 * A strict reader of Prometheus' text exposition format 0.0.4, stricter than Prometheus: HELP and TYPE before a metric's
 * samples, each metric once and together, each set of labels once, names as the conventions want them.
 * Source: prometheus.io/docs/instrumenting/exposition_formats, prometheus.io/docs/practices/naming.
 */
export interface Sample {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Family {
  readonly type: string;
  readonly help: string;
  readonly samples: readonly Sample[];
}

const NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*";
const HELP = new RegExp(`^# HELP (${NAME}) (\\S.*)$`);
const TYPE = new RegExp(`^# TYPE (${NAME}) (counter|gauge|histogram|summary|untyped)$`);
const SAMPLE = new RegExp(`^(${NAME})(?:\\{(.*)\\})? (\\S+)$`, "s");
const LABEL = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)/;
/** What Go's strconv.ParseFloat takes of what we may write. */
const VALUE = /^(?:[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?|NaN|[+-]Inf)$/;

/** Throws an Error that names the line. */
export function parseExposition(text: string): Map<string, Family> {
  if (!text.endsWith("\n")) throw new Error("the last line does not end in a line feed");
  const families = new Map<string, Family & { samples: Sample[] }>();
  const lines = text.slice(0, -1).split("\n");
  for (let at = 0; at < lines.length; ) {
    const [, name = "", help = ""] = HELP.exec(lines[at] ?? "") ?? fail(lines, at, "HELP");
    const [, typed = "", type = ""] = TYPE.exec(lines[at + 1] ?? "") ?? fail(lines, at + 1, "TYPE");
    if (typed !== name) fail(lines, at + 1, `the type of ${name}`);
    if (families.has(name)) fail(lines, at, "each metric once");
    if (!isGoodName(name, type)) fail(lines, at, `a name for a ${type}`);
    const samples: Sample[] = [];
    for (at += 2; at < lines.length && !lines[at]?.startsWith("#"); at++) {
      samples.push(readSample(lines, at, name));
      const keys = samples.map(({ labels }) => JSON.stringify(Object.entries(labels).sort()));
      if (new Set(keys).size !== keys.length) fail(lines, at, "each set of labels once");
    }
    if (samples.length === 0) fail(lines, at, `a sample of ${name}`);
    families.set(name, { type, help, samples });
  }
  return families;
}

/** A counter ends in _total, nothing else does; base units. */
function isGoodName(name: string, type: string): boolean {
  const unit = !/_(ms|milliseconds|minutes|kb|kib|mb|mib|percent)(_|$)/.test(name);
  return unit && name.endsWith("_total") === (type === "counter");
}

function readSample(lines: readonly string[], at: number, name: string): Sample {
  const [, found, inside = "", value = ""] = SAMPLE.exec(lines[at] ?? "") ?? fail(lines, at, "a sample");
  if (found !== name) fail(lines, at, `a sample of ${name}`);
  if (!VALUE.test(value)) fail(lines, at, "a number");
  const labels: Record<string, string> = {};
  for (let rest = inside; rest !== ""; ) {
    const [whole, label = "", text = ""] = LABEL.exec(rest) ?? fail(lines, at, "labels");
    if (label in labels) fail(lines, at, "each label once");
    labels[label] = text.replace(/\\(.)/g, (_, escaped: string) => (escaped === "n" ? "\n" : escaped));
    rest = rest.slice(whole.length);
  }
  return { labels, value: Number(value) };
}

function fail(lines: readonly string[], at: number, expected: string): never {
  throw new Error(`line ${at + 1}: got ${JSON.stringify(lines[at])}, expected ${expected}`);
}

/** The value of the only sample, or of the one with these labels. */
export function sampleOf(
  families: ReadonlyMap<string, Family>,
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number | undefined {
  const wanted = Object.entries(labels);
  return families
    .get(name)
    ?.samples.find((sample) => wanted.every(([key, value]) => sample.labels[key] === value))?.value;
}
