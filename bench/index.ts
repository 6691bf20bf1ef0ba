/** All measurements: `npm run bench`. Tables on stderr as they come, one JSON object on stdout at the end. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cpus } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";

/** Each with its arguments. */
const SCRIPTS = [
  "build",
  "boot",
  "memory",
  "vsock",
  "http",
  "attest",
  "attested",
  "launch",
  "logs",
  "create",
  "dev",
  "verify",
  "inbound --quick",
  "outbound --quick",
];

const results: Record<string, unknown> = {
  machine: { cpus: cpus().length, model: cpus()[0]?.model, node: process.version },
};
for (const line of SCRIPTS) {
  console.error(`== ${line}`);
  const [name = "", ...options] = line.split(" ");
  const script = join(import.meta.dirname, `${name}.ts`);
  const child = spawn(process.execPath, [script, ...options], { stdio: ["ignore", "pipe", "inherit"] });
  const [output] = await Promise.all([text(child.stdout), once(child, "exit")]);
  if (child.exitCode !== 0) process.exitCode = 1;
  else results[name] = JSON.parse(output);
}
console.log(JSON.stringify(results, null, 2));
