/**
 * A child that relays all it is asked to, under the limit of descriptors that it was started with: a published port to the
 * Unix socket `target`, and the proxy on the Unix socket `proxy`. To each message it says how it does.
 */
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { createServer } from "node:net";
import { DescriptorRelay } from "../../launcher/descriptors.ts";
import type { VsockStream } from "../../launcher/device.ts";
import { EgressProxy } from "../../launcher/egress.ts";
import { publishPort } from "../../launcher/publish.ts";
import type { Traffic } from "../../launcher/traffic.ts";
import { connectUnix, openUnix, pathAddress } from "../../linux/unix.ts";

export interface Place {
  readonly target: string;
  readonly proxy: string;
  /** Where the proxy leads, by the name remote.test. */
  readonly remotePort: number;
}

export interface Report {
  readonly refusals: readonly string[];
  readonly published: Traffic;
  readonly egress: Traffic;
  /** Files that can still be opened, of as many as were tried. */
  readonly files: number;
}

const FILES = 10;

function openFiles(): number {
  const open: number[] = [];
  try {
    while (open.length < FILES) open.push(openSync("/dev/null", "r"));
  } catch {
    // EMFILE: the count says it.
  }
  for (const fd of open) closeSync(fd);
  return open.length;
}

const { target, proxy: path, remotePort } = JSON.parse(process.argv[2] ?? "") as Place;
const refusals: string[] = [];
const onRefusal = (reason: string) => refusals.push(reason);
const publisher = await publishPort({ port: 0, vsockPort: 8080, onRefusal });
const address = pathAddress(target);
publisher.start(async () => {
  const fd = openUnix();
  connectUnix(fd, address);
  return fd;
});
const egress = new EgressProxy({
  rules: ["remote.test:80"],
  local: [{ host: "remote.test", port: 80, to: { address: "127.0.0.1", port: remotePort } }],
  descriptors: new DescriptorRelay(),
  onRefusal,
});
const server = createServer({ allowHalfOpen: true }, (socket) => {
  void egress.accept(socket as unknown as VsockStream);
});
await once(server.listen({ path, backlog: 4096 }), "listening");
process.on("message", () => {
  const report: Report = {
    refusals,
    published: publisher.traffic(),
    egress: egress.traffic(),
    files: openFiles(),
  };
  process.send?.(report);
});
process.send?.(publisher.port);
