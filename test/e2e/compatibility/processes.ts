/** node:os, process, child processes, threads. */
import assert from "node:assert/strict";
import { exec, execFile, execFileSync, execSync, fork, spawn, spawnSync } from "node:child_process";
import cluster from "node:cluster";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import { text } from "node:stream/consumers";
import { promisify } from "node:util";
import {
  BroadcastChannel,
  isMainThread,
  MessageChannel,
  type MessagePort,
  receiveMessageOnPort,
  Worker,
} from "node:worker_threads";
import type { Checks } from "./check.ts";

const MIB = 1024 * 1024;

const isMissing = (error: unknown) => {
  const { code, message } = error as NodeJS.ErrnoException;
  assert.equal(code, "ENOENT");
  assert.match(message, /ENOENT: E_NO_PROGRAM: got .+, expected Node: an enclave has no shell/);
  return true;
};

export const processes: Checks = {
  "os: name, processors, memory": () => {
    assert.deepEqual(
      [os.hostname(), os.type(), os.platform(), os.EOL],
      ["compatibility", "Linux", "linux", "\n"],
    );
    assert.equal(os.cpus().length, 2);
    assert.equal(os.availableParallelism(), 2);
    // What the kernel keeps for itself is not in the total.
    assert.ok(os.totalmem() > 400 * MIB && os.totalmem() <= 512 * MIB, `${os.totalmem()}`);
    assert.ok(os.freemem() > 16 * MIB && os.freemem() < os.totalmem());
    assert.ok(os.uptime() > 0);
    assert.equal(os.loadavg().length, 3);
    assert.equal(os.arch(), process.arch);
    assert.match(os.release(), /^\d+\.\d+/);
    assert.equal(os.constants.signals.SIGTERM, 15);
  },
  "os: network interfaces": () => {
    const { lo, ...others } = os.networkInterfaces();
    assert.deepEqual(others, {});
    assert.deepEqual(lo?.map(({ cidr }) => cidr).sort(), ["127.0.0.1/8", "::1/128"]);
  },
  "os: user and folders": () => {
    const { username, uid, gid, homedir } = os.userInfo();
    assert.deepEqual({ username, uid, gid, homedir }, { username: "root", uid: 0, gid: 0, homedir: "/root" });
    assert.deepEqual([os.homedir(), os.tmpdir()], ["/root", "/tmp"]);
    fs.accessSync(os.homedir(), fs.constants.W_OK);
  },
  "process: memory, processor time, resources": () => {
    const { rss, heapUsed, heapTotal, external } = process.memoryUsage();
    assert.ok(rss > heapTotal && heapTotal > heapUsed && heapUsed > MIB && external > 0);
    assert.ok(process.memoryUsage.rss() > MIB);
    const { maxRSS, userCPUTime } = process.resourceUsage();
    assert.ok(maxRSS * 1024 >= rss / 2 && userCPUTime > 0);
    assert.ok(process.cpuUsage().user > 0);
    // libuv asks the control groups, which this kernel has none of; os.freemem() knows.
    assert.deepEqual([process.availableMemory(), process.constrainedMemory()], [0, 0]);
    const start = process.hrtime.bigint();
    assert.ok(process.hrtime.bigint() >= start && process.uptime() > 0);
  },
  "process: arguments, environment, folder, standard streams": () => {
    assert.equal(process.cwd(), "/app");
    assert.equal(process.argv[0], process.execPath);
    assert.equal(process.env.GREETING, "hello");
    assert.equal(process.stdout.isTTY, undefined);
    assert.equal(process.stdout.write("a line of the app\n"), true);
    assert.equal(fs.readFileSync(0, "utf8"), "");
    assert.ok(process.getuid?.() === 0 && process.umask() === 0o022);
  },
  "process: signals to itself and to children": async () => {
    const own = once(process, "SIGUSR2");
    process.kill(process.pid, "SIGUSR2");
    await own;
    const code = `process.on("SIGTERM", () => process.exit(7)); setInterval(() => {}, 1000); console.log("up")`;
    const child = spawn(process.execPath, ["-e", code]);
    await once(child.stdout, "data");
    child.kill("SIGTERM");
    assert.deepEqual(await once(child, "exit"), [7, null]);
    const killed = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"]);
    killed.kill("SIGKILL");
    assert.deepEqual(await once(killed, "exit"), [null, "SIGKILL"]);
  },
  "process: uncaughtException and unhandledRejection handlers": async () => {
    const thrown = once(process, "uncaughtException");
    setImmediate(() => {
      throw new Error("thrown");
    });
    assert.equal(((await thrown)[0] as Error).message, "thrown");
    const rejected = once(process, "unhandledRejection");
    void Promise.reject(new Error("rejected"));
    assert.equal(((await rejected)[0] as Error).message, "rejected");
  },
  "process: warnings and reports": async () => {
    const warned = once(process, "warning");
    process.emitWarning("careful");
    assert.equal(((await warned)[0] as Error).message, "careful");
    const report = process.report.getReport() as { header?: { nodejsVersion?: string } };
    assert.equal(report.header?.nodejsVersion, process.version);
  },
  "child_process: Node itself, by path and by name": async () => {
    const { stdout } = await promisify(execFile)(process.execPath, ["-p", "6 * 7"]);
    assert.equal(stdout, "42\n");
    assert.equal(execFileSync("node", ["-p", "process.env.GREETING"], { encoding: "utf8" }), "hello\n");
    const child = spawn("node", ["-e", "process.stdin.pipe(process.stdout)"]);
    child.stdin.end("through a pipe");
    assert.equal(await text(child.stdout), "through a pipe");
    assert.equal(spawnSync("node", ["-e", "process.exit(3)"]).status, 3);
  },
  "child_process: fork with messages": async () => {
    const path = "/tmp/forked.mjs";
    fs.writeFileSync(path, `process.on("message", (n) => process.send(n * 2, () => process.disconnect()));`);
    const child = fork(path);
    child.send(21);
    assert.equal((await once(child, "message"))[0], 42);
    assert.deepEqual(await once(child, "exit"), [0, null]);
  },
  "child_process: no shell and no other program, and the error says so": async () => {
    await assert.rejects(promisify(exec)("ls"), isMissing);
    await assert.rejects(promisify(execFile)("git", ["status"]), isMissing);
    await assert.rejects(once(spawn("ls"), "spawn"), isMissing);
    await assert.rejects(once(spawn("ls", { shell: true }), "spawn"), isMissing);
    assert.throws(() => execSync("ls"), isMissing);
    assert.throws(() => execFileSync("openssl", ["version"]), isMissing);
    isMissing(spawnSync("ls").error);
    const code = `require("node:child_process").exec("ls", (e) => console.log(e.message))`;
    assert.match(execFileSync("node", ["-e", code], { encoding: "utf8" }), /E_NO_PROGRAM/);
  },
  "child_process: a folder that is missing is not taken for a missing program": async () => {
    await assert.rejects(once(spawn("node", { cwd: "/missing" }), "spawn"), (error: Error) => {
      assert.doesNotMatch(error.message, /E_NO_PROGRAM/);
      return true;
    });
  },
  "worker_threads: messages, shared memory, transfer": async () => {
    assert.equal(isMainThread, true);
    const shared = new Int32Array(new SharedArrayBuffer(4));
    const code = `const { parentPort, workerData } = require("node:worker_threads");
      Atomics.add(workerData, 0, 41); Atomics.notify(workerData, 0);
      parentPort.on("message", (port) => { port.postMessage("from the worker"); port.close(); parentPort.close(); });`;
    const worker = new Worker(code, { eval: true, workerData: shared });
    const { port1, port2 } = new MessageChannel();
    worker.postMessage(port2, [port2 as MessagePort]);
    assert.equal((await once(port1, "message"))[0], "from the worker");
    assert.equal(Atomics.load(shared, 0), 41);
    assert.equal((await once(worker, "exit"))[0], 0);
    assert.equal(receiveMessageOnPort(port1), undefined);
  },
  "worker_threads: BroadcastChannel": async () => {
    const [one, two] = [new BroadcastChannel("c"), new BroadcastChannel("c")];
    const { promise, resolve } = Promise.withResolvers<unknown>();
    two.onmessage = (event) => resolve((event as MessageEvent).data);
    one.postMessage("all");
    assert.equal(await promise, "all");
    one.close();
    two.close();
  },
  "cluster: workers share a port": async () => {
    const path = "/tmp/clustered.mjs";
    const code = `import http from "node:http";
      http.createServer((_, r) => r.end(String(process.pid))).listen(8090, "127.0.0.1");`;
    fs.writeFileSync(path, code);
    cluster.setupPrimary({ exec: path });
    const workers = [cluster.fork(), cluster.fork()];
    await Promise.all(workers.map((worker) => once(worker, "listening")));
    const pids = new Set<string>();
    const agent = new http.Agent();
    for (let i = 0; i < 4; i++) {
      const { promise, resolve } = Promise.withResolvers<http.IncomingMessage>();
      http.get({ host: "127.0.0.1", port: 8090, agent }, resolve);
      pids.add(await text(await promise));
    }
    for (const worker of workers) worker.process.kill();
    await Promise.all(workers.map((worker) => once(worker, "exit")));
    assert.deepEqual([...pids].sort(), workers.map((worker) => String(worker.process.pid)).sort());
  },
};
