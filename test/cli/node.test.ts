/** `cloister node`: the Node of this process, with its words, its environment and its end. */
import { spawnSync } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";

const CLOISTER = join(import.meta.dirname, "../../bin/cloister");

function cloister(...words: string[]) {
  return spawnSync(process.execPath, [CLOISTER, ...words], { encoding: "utf8", env: { GREETING: "hi" } });
}

test("runs words behind -- on the same Node, and passes its status on", () => {
  const script = "console.log(process.version, process.env.GREETING, process.argv.slice(1)); process.exit(7)";
  const { status, stdout } = cloister("node", "--", "-e", script, "--", "--help");
  expect([status, stdout]).toEqual([7, `${process.version} hi [ '--help' ]\n`]);
});

test("its death by a signal is told as a shell tells it", () => {
  expect(cloister("node", "--", "-e", "process.kill(process.pid, 'SIGKILL')").status).toBe(137);
});

test("Yarn's zip files are refused with the line that mends it", () => {
  // Yarn preloads .pnp.cjs, which sets this: https://yarnpkg.com/advanced/pnpapi
  const hook = 'Object.defineProperty(process, "versions", { value: { ...process.versions, pnp: "3" } })';
  const words = ["--import", `data:text/javascript,${encodeURIComponent(hook)}`, CLOISTER, "--help"];
  const { status, stderr } = spawnSync(process.execPath, words, { encoding: "utf8" });
  expect([status, stderr.includes("nodeLinker: node-modules")]).toEqual([1, true]);
});

test("a folder that was removed under the shell keeps no verb from what needs no folder", () => {
  const folder = mkdtempSync(join(tmpdir(), "cloister-gone-"));
  const script = 'cd "$1" && rmdir "$1" && exec "$2" "$3" --help';
  const words = ["-c", script, "sh", folder, process.execPath, CLOISTER];
  const { status, stdout, stderr } = spawnSync("sh", words, { encoding: "utf8" });
  expect([status, stderr]).toEqual([0, ""]);
  expect(stdout).toContain("cloister");
});
