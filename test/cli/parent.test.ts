/** Whose end ends `cloister dev` and `run`: that of the shell which npm starts for a script. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
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

/** What a test that failed left. */
function endGroup(leader: number | undefined): void {
  try {
    if (leader !== undefined) process.kill(-leader, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}
