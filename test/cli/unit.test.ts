/** `run --systemd`: the unit's text, what systemd says of it, and how the service manager hears that the app serves. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { text } from "node:stream/consumers";
import { afterAll, describe, expect, test } from "vitest";
import { main } from "../../cli/main.ts";
import { unitText } from "../../cli/unit.ts";
import { notifyManager } from "../../launcher/notify.ts";
import { closeDescriptor } from "../../linux/descriptor.ts";
import { bindUnix, openUnix, SOCK_CLOEXEC, SOCK_DGRAM } from "../../linux/unix.ts";

const folder = mkdtempSync(join(tmpdir(), "cloister-unit-"));
afterAll(() => rmSync(folder, { recursive: true }));

async function systemd(...words: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const status = await main(["run", ...words, "--systemd"], {
    stdout,
    stderr,
    env: {},
    directory: "/srv",
    signal: new AbortController().signal,
  });
  stdout.end();
  stderr.end();
  return { status, stdout: await text(stdout), stderr: await text(stderr) };
}

/** What systemd-analyze(1) finds wrong; undefined where there is none. */
function verify(unit: string): string | undefined {
  if (spawnSync("systemd-analyze", ["--version"]).status !== 0) return undefined;
  const path = join(folder, "app.service");
  writeFileSync(path, unit);
  const { status, stdout, stderr } = spawnSync("systemd-analyze", ["verify", path], { encoding: "utf8" });
  return `${status} ${stdout}${stderr}`;
}

describe("the unit", () => {
  test("names the sockets that it needs, Unix sockets by absolute paths", async () => {
    const { stdout } = await systemd(
      ...["app.eif", "-p", "systemd:web:8080", "-p", "unix:app.sock:8080,proxy", "--vsock-socket", "vsock"],
    );
    expect(stdout).toContain(
      "--publish systemd:web:8080 --publish unix:/srv/app.sock:8080,proxy --vsock-socket /srv/vsock\n",
    );
    expect(stdout).toContain("Requires=app.socket\n");
    expect(stdout).toContain("# FileDescriptorName=web\n");
    expect(verify(stdout)?.replaceAll(/.*app\.socket.*\n/g, "") ?? "").not.toContain("app.service:");
  });

  test("orders the allocator, names absolute paths and no CID", async () => {
    const { status, stdout } = await systemd(
      "app.eif",
      "-p",
      "8080:8080",
      "-p",
      "[::1]:0:1",
      "--memory",
      "1G",
      "--cpus",
      "4",
      "--health-port",
      "[::]:9100",
    );
    expect(status).toBe(0);
    expect(stdout).toContain("After=nitro-enclaves-allocator.service\n");
    expect(stdout).toMatch(
      /^ExecStart=\/\S+\/node \/\S+\/cli\/entry\.ts run \/srv\/app\.eif --name app --memory 1024M --cpus 4 --publish 8080:8080 --publish "\[::1\]:0:1" --health-port "\[::\]:9100"$/m,
    );
    expect(stdout).not.toContain("cid");
    expect(stdout).toMatch(/^Type=notify$[\s\S]*^KillMode=mixed$[\s\S]*^TimeoutStopSec=30$/m);
  });

  test.each([
    ["--cid", "77"],
    ["--restart", "on-failure"],
  ])("%s has no place in it", async (...words) => {
    expect(await systemd("app.eif", ...words)).toMatchObject({
      status: 2,
      stdout: "",
      stderr: expect.stringContaining(words[0] ?? ""),
    });
  });

  test("for the emulator needs no allocator", async () => {
    expect((await systemd("app.eif", "--emulator")).stdout).not.toContain("allocator");
  });

  test("is one that systemd takes, hostile paths and a user included", async ({ skip }) => {
    const program = execFileSync("sh", ["-c", "command -v true"], { encoding: "utf8" }).trim();
    const order = { eif: "/srv/app.eif", emulated: false, debug: false, publish: [] };
    const command = [program, '/srv/50% "new" $HOME\\app.eif', "--name", "app"];
    const unit = unitText({ order, command, name: "app", user: "root", stopSeconds: 30 });
    expect(unit).toContain(`ExecStart=${program} "/srv/50%% \\"new\\" $$HOME\\\\app.eif" --name app\n`);
    const said = verify(unit);
    if (said === undefined) skip("no systemd-analyze here");
    expect(said).toBe("0 ");
    expect(verify(unit.replace("KillMode=mixed", "KillMode=gently"))).toContain("kill mode");
  });
});

test("the service manager is told on its socket; without one nobody is", () => {
  const socket = openUnix(SOCK_CLOEXEC, SOCK_DGRAM);
  try {
    const name = Buffer.from(bindUnix(socket).subarray(3)).toString();
    notifyManager(`@${name}`, "READY=1");
    const message = Buffer.alloc(64);
    expect(message.toString("utf8", 0, readSync(socket, message))).toBe("READY=1");
  } finally {
    closeDescriptor(socket);
  }
  notifyManager(undefined, "READY=1");
  notifyManager("", "READY=1");
  notifyManager("/nowhere/notify", "READY=1");
});
