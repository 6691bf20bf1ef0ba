/** What the benchmarks share: the hello example as an EIF, a boot of it, medians, tables. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createEmulatedDevice } from "../emulator/index.ts";
import { type EnclaveEvent, launch } from "../launcher/index.ts";
import { type BuildResult, build, type CloisterConfig } from "../packer/index.ts";

export const HELLO = join(import.meta.dirname, "../examples/hello");

/** Build the hello example, use it, remove it. */
export async function withImage<T>(
  overrides: CloisterConfig,
  use: (image: BuildResult) => Promise<T>,
): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), "cloister-bench-"));
  try {
    return await use(await build({ directory: HELLO, output: join(directory, "hello.eif"), overrides }));
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Milliseconds since launch() was called; `kernel` to `ready` are the enclave's own milestones. */
export interface Boot {
  readonly started: number;
  readonly kernel: number;
  readonly init: number;
  readonly heartbeat: number;
  readonly ready: number;
  readonly response: number;
}

/** Boot, send one request, terminate. */
export async function bootOnce(eifPath: string, memoryMiB: number): Promise<Boot> {
  using device = createEmulatedDevice();
  const at: Record<string, number> = {};
  const onEvent = (event: EnclaveEvent) => {
    if (event.type === "stage") at[event.stage] = event.elapsedMs;
    // The enclave's clock starts with its kernel, right after the hypervisor took it.
    if (event.type === "phase") at[event.phase] = (at.started ?? 0) + event.uptimeMs;
    if (event.type === "ready") at.ready = event.elapsedMs;
  };
  const begin = performance.now();
  const publish = [{ port: 0, vsockPort: 8080 }];
  await using enclave = await launch(eifPath, { device, memoryMiB, onEvent, publish });
  await enclave.ready;
  await (await fetch(`http://127.0.0.1:${enclave.published[0]?.port}/`)).text();
  at.response = performance.now() - begin;
  return at as unknown as Boot;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

/** Columns as wide as their widest cell, numbers to the right. */
export function table(rows: readonly Readonly<Record<string, string | number>>[]): string {
  const columns = Object.keys(rows[0] ?? {});
  const widths = columns.map((name) => Math.max(name.length, ...rows.map((row) => String(row[name]).length)));
  const line = (cells: readonly (string | number)[]) =>
    cells
      .map((cell, index) => {
        const width = widths[index] ?? 0;
        return typeof cell === "number" ? String(cell).padStart(width) : cell.padEnd(width);
      })
      .join("  ")
      .trimEnd();
  return [line(columns), ...rows.map((row) => line(columns.map((name) => row[name] ?? "")))].join("\n");
}
