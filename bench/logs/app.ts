/** Writes lines, by itself and in a child whose output it reads: what `console.log` costs here, and as a plain process. */
import { spawn } from "node:child_process";
import { once } from "node:events";

const FILL = "x".repeat(90);

/** Its source runs in the child too, so it uses nothing of this module. */
function write(lines: number, fill: string): number {
  const start = performance.now();
  for (let i = 0; i < lines; i++) console.log(`line ${i} ${fill}`);
  return performance.now() - start;
}

/** A plain process that writes into a pipe which is read. */
async function writePlain(lines: number): Promise<number> {
  const script = `process.send((${write})(${lines}, "${FILL}"));`;
  const child = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit", "ipc"] });
  child.stdout?.resume();
  const [[ms]] = await Promise.all([once(child, "message"), once(child, "close")]);
  return ms;
}

export default {
  async fetch(request: Request): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    const lines = Number(searchParams.get("lines"));
    if (pathname === "/flood") {
      const ms = write(lines, FILL.repeat(11));
      return Response.json({ ms, rss: process.memoryUsage.rss() });
    }
    const plainMs = await writePlain(lines);
    return Response.json({ plainMs, enclaveMs: write(lines, FILL) });
  },
};
