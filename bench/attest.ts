/**
 * What attest() takes in the enclave: `node bench/attest.ts [--times N]`. On stock QEMU with the emulated NSM; and, where
 * CLOISTER_NITRO_QEMU names a QEMU with the `nitro-enclave` machine, over the real driver (whose documents nobody signs).
 * A table on stderr, one JSON value on stdout.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { createEmulatedDevice, type EmulatedDeviceOptions } from "../emulator/index.ts";
import { launch } from "../launcher/index.ts";
import { build } from "../packer/index.ts";
import { table } from "./image.ts";

const WARM_UP = 50;

interface Timed {
  readonly each: readonly number[];
  readonly all: number;
}

async function measure(url: string, call: string, at: number, times: number) {
  const ask = async (count: number) =>
    (await (await fetch(`${url}?call=${call}&at=${at}&times=${count}`)).json()) as Timed;
  await ask(WARM_UP);
  const { each, all } = await ask(times);
  const sorted = [...each].sort((a, b) => a - b);
  const quantile = (q: number) => Number((sorted[Math.floor(sorted.length * q)] ?? 0).toFixed(2));
  return {
    ...{ call, atOnce: at, medianMs: quantile(0.5), p99Ms: quantile(0.99) },
    perSecond: Math.round((times / all) * 1000),
  };
}

async function measureMachine(name: string, eif: string, options: EmulatedDeviceOptions, times: number) {
  using device = createEmulatedDevice(options);
  const publish = [{ port: 0, vsockPort: 8080 }];
  await using enclave = await launch(eif, { device, publish });
  await enclave.ready;
  const url = `http://127.0.0.1:${enclave.published[0]?.port}/`;
  const rows = [];
  for (const [call, at] of [
    ["describe", 1],
    ["attest", 1],
    ["attest", 16],
  ] as const) {
    rows.push({ nsm: name, ...(await measure(url, call, at, times)) });
  }
  return rows;
}

const { values } = parseArgs({ options: { times: { type: "string", default: "500" } } });
const nitroQemu = process.env.CLOISTER_NITRO_QEMU;
const folder = mkdtempSync(join(tmpdir(), "cloister-bench-"));
try {
  const nsm = { root: join(folder, "root") };
  const machines: [string, EmulatedDeviceOptions][] = [["emulated", { nsm }]];
  if (nitroQemu !== undefined) {
    const firmware = ["/usr/share/qemu", "/usr/share/seabios"];
    machines.push(["QEMU's, /dev/nsm", { nsm, program: nitroQemu, machine: "nitro-enclave", firmware }]);
  }
  const { eifPath } = await build({
    directory: join(import.meta.dirname, "attest"),
    output: join(folder, "attest.eif"),
    overrides: { name: "attest", memory: 256 },
  });
  const rows = [];
  for (const [name, options] of machines) {
    rows.push(...(await measureMachine(name, eifPath, options, Number(values.times))));
  }
  console.error(table(rows));
  console.log(JSON.stringify({ attest: rows }));
} finally {
  rmSync(folder, { recursive: true, force: true });
}
