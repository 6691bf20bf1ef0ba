/** A TCP port that answers nothing, as a host behind a firewall: its queue of connections is full and stays full. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

export interface BlackHole {
  readonly port: number;
  close(): Promise<void>;
}

/** Longer than a connect over the loopback takes on a busy machine. */
const ANSWER_MS = 300;

/** Listens, says where, and never accepts. */
const LISTENER = `
const [address, port] = process.argv.slice(1);
const server = require("node:net").createServer().listen({ port: Number(port), host: address, backlog: 1 }, () => {
  require("node:fs").writeSync(1, String(server.address().port));
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
});`;

export async function openBlackHole(address: string, port = 0): Promise<BlackHole> {
  const child = spawn(process.execPath, ["-e", LISTENER, address, String(port)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [data] = (await once(child.stdout, "data")) as [Buffer];
  const bound = Number(data.toString());
  const fillers: Socket[] = [];
  // Linux takes one more than the backlog says; what comes then hears nothing.
  for (let isAnswered = true; isAnswered; ) {
    const socket = connect(bound, address).on("error", () => {});
    fillers.push(socket);
    const answered = once(socket, "connect").then(() => true);
    isAnswered = await Promise.race([answered, sleep(ANSWER_MS, false)]);
  }
  return {
    port: bound,
    async close() {
      for (const socket of fillers) socket.destroy();
      child.kill("SIGKILL");
      await once(child, "close");
    },
  };
}
