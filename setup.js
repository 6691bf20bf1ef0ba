// Plain JavaScript for any Node >= 18: what `npm test` and `npm run demo` need before the pinned Node exists.
import { spawnSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL(".", import.meta.url));

if (!isInstalled()) run("npm", ["ci", "--no-audit", "--no-fund"]);
if (!works("qemu-system-x86_64", ["--version"])) installQemu();

function isInstalled() {
  const installed = `${root}node_modules/.package-lock.json`;
  return existsSync(installed) && statSync(installed).mtimeMs >= statSync(`${root}package-lock.json`).mtimeMs;
}

function installQemu() {
  if (!works("apt-get", ["--version"])) {
    fail("qemu-system-x86_64 is not on PATH. Install QEMU 7.2 or newer with your system's package manager.");
  }
  const sudo = process.getuid?.() === 0 ? [] : ["sudo"];
  if (sudo.length > 0 && !works("sudo", ["-n", "true"])) {
    fail("qemu-system-x86_64 is not on PATH. Run: sudo apt-get install -y qemu-system-x86");
  }
  runWords([...sudo, "apt-get", "update"]);
  runWords([...sudo, "apt-get", "install", "-y", "--no-install-recommends", "qemu-system-x86"]);
}

function works(command, args) {
  return spawnSync(command, args, { stdio: "ignore" }).status === 0;
}

function runWords([command, ...args]) {
  run(command, args);
}

function run(command, args) {
  console.error(`$ ${command} ${args.join(" ")}`);
  // What these print is of use only when they fail; standard output stays the caller's.
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  const { status, error } = spawnSync(command, args, { cwd: root, env, stdio: ["ignore", 2, 2] });
  if (status !== 0) fail(`${command} failed: ${error?.message ?? `exit status ${status}`}`);
}

function fail(message) {
  console.error(`error: ${message}`);
  process.exit(1);
}
