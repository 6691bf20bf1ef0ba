/**
 * The main job, shown: an app becomes an EIF, boots as an enclave in the emulator, and answers a request over vsock.
 * `npm run demo`
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createEmulatedDevice } from "../emulator/index.ts";
import { CloisterError } from "../format/errors.ts";
import { type EnclaveEvent, launch } from "../launcher/index.ts";
import { build } from "../packer/index.ts";

interface Step {
  readonly name: string;
  /** Since the demo began. */
  readonly endMs: number;
  readonly note: string;
}

const PHASES: Readonly<Record<string, string>> = {
  init: "kernel up, /init is PID 1 on Node",
  heartbeat: "0xb7 sent to the parent and echoed",
  app: "app.ts begins to load",
};

const steps: Step[] = [];
const begin = performance.now();
const mark = (name: string, note: string, endMs = performance.now() - begin) =>
  steps.push({ name, note, endMs });

async function demo(directory: string): Promise<void> {
  const image = join(directory, "hello.eif");
  const project = fileURLToPath(new URL("hello", import.meta.url));
  const built = await build({ directory: project, output: image });
  mark("build", `${(built.sizeBytes / 1e6).toFixed(1)} MB: kernel, Node and init, app`);

  using device = createEmulatedDevice();
  const launched = performance.now() - begin;
  const onEvent = (event: EnclaveEvent) => {
    if (event.type === "stage" && event.stage === "started") {
      mark("load", "EIF copied to enclave memory, checked, measured; QEMU runs", launched + event.elapsedMs);
    } else if (event.type === "phase" && event.phase in PHASES) {
      // The enclave's clock starts with its kernel, right after "load".
      const start = steps.find(({ name }) => name === "load")?.endMs ?? launched;
      mark(event.phase, PHASES[event.phase] ?? "", start + event.uptimeMs);
    } else if (event.type === "ready") {
      mark("ready", `serving on vsock port ${event.ports.join(", ")}`, launched + event.elapsedMs);
    }
  };
  await using enclave = await launch(image, { device, onEvent, publish: [{ port: 0, vsockPort: 8080 }] });
  await enclave.ready;
  const [published] = enclave.published;
  const url = `http://${published?.address}:${published?.port}/world`;
  const response = await fetch(url);
  const body = await response.text();
  mark("response", `HTTP ${response.status}`);

  console.log(timeline());
  console.log(`\n$ curl ${url}\n${body.trimEnd()}\n`);
  for (const pcr of ["PCR0", "PCR1", "PCR2"] as const) console.log(`${pcr}  ${built.measurements[pcr]}`);
  const report = await enclave.stop();
  console.log(
    `\nenclave ${enclave.id} (CID ${enclave.cid}, ${enclave.memoryMiB} MiB) ended: ${JSON.stringify(report)}`,
  );
}

/** One bar a step, as wide as it took. */
function timeline(): string {
  const ordered = [...steps].sort((a, b) => a.endMs - b.endMs);
  const scale = 40 / (ordered.at(-1)?.endMs ?? 1);
  return ordered
    .map(({ name, note, endMs }, index) => {
      const startMs = ordered[index - 1]?.endMs ?? 0;
      const bar =
        " ".repeat(startMs * scale) + "▇".repeat(Math.max(1, Math.round((endMs - startMs) * scale)));
      return `${name.padEnd(10)}${((endMs - startMs) / 1000).toFixed(2).padStart(7)} s  ${bar.padEnd(42)} ${note}`;
    })
    .join("\n");
}

const directory = mkdtempSync(join(tmpdir(), "cloister-demo-"));
try {
  await demo(directory);
} catch (error) {
  if (!(error instanceof CloisterError)) throw error;
  console.error(`error ${error.code}: ${error.message}\n${error.details ?? ""}\n  fix: ${error.fix}`);
  process.exitCode = 1;
} finally {
  rmSync(directory, { recursive: true, force: true });
}
