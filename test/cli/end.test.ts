/** What ends a verb from outside: a signal, and the end of the shell which npm starts for a script. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { expect, onTestFinished, test } from "vitest";

const CLOISTER = join(import.meta.dirname, "../../bin/cloister");

test("a script's shell that is ended takes cloister dev with it", async () => {
  const directory = mkdtempSync(join(tmpdir(), "cloister-parent-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  writeFileSync(join(directory, "app.ts"), "export default { fetch: () => new Response('x') };");
  // The second command keeps every shell from replacing itself by the first.
  const script = `"${process.execPath}" "${CLOISTER}" dev --bare --publish 127.0.0.1:0:8080; true`;
  const shell = spawn("sh", ["-c", script], {
    cwd: directory,
    env: { ...process.env, npm_lifecycle_event: "dev" },
    stdio: ["ignore", "pipe", "inherit"],
    detached: true,
  });
  onTestFinished(() => endGroup(shell.pid));
  const [output] = await Promise.all([
    // Its end: the last process that could write is gone.
    text(shell.stdout),
    once(shell.stdout, "data").then(() => shell.kill("SIGTERM")),
  ]);
  expect(output).toContain("cloister: stopping\n");
});

test.each(["SIGINT", "SIGTERM"] as const)(
  "a build is ended by the first %s, and writes nothing",
  async (signal) => {
    const directory = mkdtempSync(join(tmpdir(), "cloister-end-"));
    onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
    writeFileSync(join(directory, "app.ts"), "");
    // It builds for ever.
    const config = 'console.log("building"); await new Promise((resolve) => setTimeout(resolve, 1e9));';
    writeFileSync(join(directory, "cloister.config.ts"), config);
    const build = spawn(process.execPath, [CLOISTER, "build"], {
      cwd: directory,
      stdio: ["ignore", "pipe", "inherit"],
    });
    onTestFinished(() => void build.kill("SIGKILL"));
    await once(build.stdout, "data");
    build.kill(signal);
    expect(await once(build, "exit")).toEqual([null, signal]);
    expect(readdirSync(directory).filter((name) => name.includes(".eif"))).toEqual([]);
  },
);

/** What a test that failed left. */
function endGroup(leader: number | undefined): void {
  try {
    if (leader !== undefined) process.kill(-leader, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}
