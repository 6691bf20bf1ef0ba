/**
 * How long tests wait for their enclave: `node bench/testing.ts [--runs N]`. createEnclave of the hello example to its first
 * response in either mode, in turn; and a bare enclave that is started again with the bundle there already, as
 * `cloister dev --bare` does on each save, to ready. Beside it Node alone: a process that says it is there. Table on stderr,
 * one JSON value on stdout.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { createEnclave, type EnclaveMode } from "cloister/emulator";
import { startBare } from "../dev/bare/index.ts";
import { bundleApp } from "../packer/bundle.ts";
import { loadProject } from "../packer/project.ts";
import { median, table } from "./image.ts";

const { values } = parseArgs({ options: { runs: { type: "string", default: "5" } } });
const directory = join(import.meta.dirname, "../examples/hello");

async function timed(run: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await run();
  return performance.now() - begin;
}

const created = (mode: EnclaveMode) => async () => {
  await using enclave = await createEnclave({ directory, mode, config: { memory: "256M" } });
  await enclave.fetch("/");
};

const project = await loadProject({ directory });
const bundle = await bundleApp(project);

async function restarted(): Promise<void> {
  await using enclave = await startBare({ project, bundle, publish: [] });
  await enclave.ready;
}

/** The floor: no process of Node is there sooner. */
async function nodeAlone(): Promise<void> {
  const child = spawn(process.execPath, ["-e", "console.log(1)"], { stdio: ["ignore", "pipe", "inherit"] });
  await once(child.stdout, "data");
}

const WAYS = {
  "node alone": nodeAlone,
  "bare: again, to ready": restarted,
  "bare: createEnclave to response": created("bare"),
  "vm: createEnclave to response": created("vm"),
};
const times: Record<string, number[]> = {};
// In turn, so that a busy minute is everyone's.
for (let round = 0; round < Number(values.runs); round++) {
  for (const [way, run] of Object.entries(WAYS)) times[way] = [...(times[way] ?? []), await timed(run)];
}
const rows = Object.entries(times).map(([way, all]) => ({ way, medianMs: Math.round(median(all)) }));
console.error(table(rows));
console.log(JSON.stringify({ runs: Number(values.runs), rows }));
