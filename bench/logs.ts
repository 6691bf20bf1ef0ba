/**
 * Logs: what console.log costs an app in an enclave against a plain process in the same machine that writes into a pipe,
 * and how many records a second reach the parent; with rules of `redact` too. `node bench/logs.ts [--rounds N] [--flood
 * LINES]`; a flood of lines of a kilobyte goes to a parent that does not read. A table on stderr, one JSON value on stdout.
 */
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { get, type IncomingMessage } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { json } from "node:stream/consumers";
import { parseArgs } from "node:util";
import { createEmulatedDevice } from "../emulator/index.ts";
import { PORT_CONTROL } from "../format/abi.ts";
import { type Enclave, type EnclaveEvent, launch, type VsockStream } from "../launcher/index.ts";
import { build } from "../packer/index.ts";
import { median, table } from "./image.ts";

const LINES = 10_000;
const RULES: Readonly<Record<string, readonly string[]>> = {
  none: [],
  "two names": ["password", "token"],
  "two names, two patterns": ["password", "token", "/sk_[a-z0-9]+/i", "/\\b\\d{16}\\b/"],
};

interface Cost {
  readonly plainMs: number;
  readonly enclaveMs: number;
}

/** Counts what arrives; `pause` is a parent that does not read. */
class Watch {
  received = 0;
  dropped = 0;
  control: VsockStream | undefined;
  #settled = Promise.withResolvers<void>();
  #left = Number.POSITIVE_INFINITY;

  readonly onEvent = (event: EnclaveEvent): void => {
    if (event.type !== "log") return;
    this.received++;
    this.dropped += event.dropped;
    this.#left -= 1 + event.dropped;
    if (this.#left <= 0) this.#settled.resolve();
  };

  /** Resolves when this many more lines were received or counted. */
  expect(lines: number): Promise<void> {
    this.received = 0;
    this.dropped = 0;
    this.#left = lines;
    this.#settled = Promise.withResolvers();
    return this.#settled.promise;
  }
}

async function withApp<T>(
  redact: readonly string[],
  use: (url: string, watch: Watch) => Promise<T>,
): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), "cloister-bench-"));
  try {
    const project = join(import.meta.dirname, "logs");
    const { eifPath } = await build({
      directory: project,
      entry: "app.ts",
      output: join(directory, "logs.eif"),
      overrides: { name: "logs", redact },
    });
    using device = createEmulatedDevice();
    const watch = new Watch();
    const listen: typeof device.vsock.listen = (port, onConnection) =>
      device.vsock.listen(port, (stream) => {
        if (port === PORT_CONTROL) watch.control = stream;
        onConnection(stream);
      });
    const vsock = { listen, connect: device.vsock.connect.bind(device.vsock) };
    await using enclave: Enclave = await launch(eifPath, {
      device: { ...device, vsock },
      memoryMiB: 512,
      publish: [{ port: 0, vsockPort: 8080 }],
      onEvent: watch.onEvent,
    });
    await enclave.ready;
    return await use(`http://127.0.0.1:${enclave.published[0]?.port}`, watch);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function measure(name: string, redact: readonly string[], rounds: number) {
  return await withApp(redact, async (url, watch) => {
    const rows: (Cost & { ratio: number; received: number })[] = [];
    for (let round = 0; round < rounds; round++) {
      const settled = watch.expect(LINES);
      const cost = (await (await fetch(`${url}/?lines=${LINES}`)).json()) as Cost;
      await settled;
      rows.push({ ...cost, ratio: cost.enclaveMs / cost.plainMs, received: watch.received });
    }
    const of = (key: "plainMs" | "enclaveMs" | "ratio" | "received") => median(rows.map((row) => row[key]));
    return {
      redact: name,
      plainMs: Math.round(of("plainMs")),
      enclaveMs: Math.round(of("enclaveMs")),
      ratio: Number(of("ratio").toFixed(2)),
      linesPerSecond: Math.round((LINES / of("enclaveMs")) * 1000),
      receivedPercent: Math.round((of("received") / LINES) * 100),
    };
  });
}

/** To a parent that does not read until the end. */
async function flood(lines: number) {
  return await withApp([], async (url, watch) => {
    const settled = watch.expect(lines);
    watch.control?.pause();
    // No fetch, which gives up on an answer after five minutes.
    const [response] = (await once(get(`${url}/flood?lines=${lines}`), "response")) as [IncomingMessage];
    const { ms, rss } = (await json(response)) as { ms: number; rss: number };
    watch.control?.resume();
    await settled;
    const { received, dropped } = watch;
    return { lines, seconds: Math.round(ms / 1000), rssMB: Math.round(rss / 1e6), received, dropped };
  });
}

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "5" }, flood: { type: "string" } },
});
if (values.flood !== undefined) {
  console.log(JSON.stringify({ flood: await flood(Number(values.flood)) }));
} else {
  const rows = [];
  for (const [name, rules] of Object.entries(RULES))
    rows.push(await measure(name, rules, Number(values.rounds)));
  console.error(table(rows));
  console.log(JSON.stringify({ logs: rows }));
}
