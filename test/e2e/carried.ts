/**
 * Runs under `cloister emulate`, as a parent whose launcher carries nothing: starts the image of egress.test.ts, asks it
 * for a page before, while, after and again while `cloister proxy` runs beside it, and kills the first one in the middle of
 * a download. Prints the answers as JSON.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { launch, openNitroDevice } from "../../launcher/index.ts";

const [eif = "", local = ""] = process.argv.slice(2);
const CID = 33;
const ENTRY = fileURLToPath(new URL("../../cli/entry.ts", import.meta.url));

using device = openNitroDevice();
await using enclave = await launch(eif, {
  device,
  cid: CID,
  memoryMiB: 256,
  egress: false,
  publish: [{ port: 0, vsockPort: 8080 }],
});
await enclave.ready;

async function ask(path = "fetch"): Promise<unknown> {
  return await (await fetch(`http://127.0.0.1:${enclave.published[0]?.port}/${path}`)).json();
}

async function startProxy(): Promise<ChildProcess> {
  const words = [ENTRY, "proxy", "--cid", String(CID), eif, "--allow-local", `web.test:80=${local}`];
  const child = spawn(process.execPath, words, { stdio: ["ignore", "ignore", "pipe"] });
  await once(child.stderr ?? child, "data");
  return child;
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  child.kill(signal);
  await once(child, "close");
}

const before = await ask();
const first = await startProxy();
const during = await ask();
const begun = await ask("download-begin");
await end(first, "SIGKILL");
const cut = await ask("download-end");
const after = await ask();
const second = await startProxy();
const again = await ask();
await end(second, "SIGTERM");
console.log(JSON.stringify([before, during, begun, cut, after, again, second.exitCode]));
