/** What a published port counts, while connections are open and after. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { VsockStream } from "../../launcher/device.ts";
import { type Publisher, publishPort } from "../../launcher/publish.ts";
import { pair } from "./fake.ts";

let publisher: Publisher;
const clients: Socket[] = [];
beforeEach(async () => {
  publisher = await publishPort({ port: 0, vsockPort: 8080 });
});
afterEach(() => {
  for (const client of clients.splice(0)) client.destroy();
  publisher.close();
});

function dial(): Socket {
  const client = connect(publisher.port, "127.0.0.1").on("error", () => {});
  clients.push(client);
  return client;
}

/** An enclave that answers each byte with two. */
async function doubling(): Promise<VsockStream> {
  const [ours, theirs] = pair({ cid: 3, port: 1 }, { cid: 16, port: 8080 });
  theirs.on("data", (chunk: Buffer) => theirs.write(Buffer.concat([chunk, chunk])));
  theirs.once("end", () => theirs.end());
  return ours;
}

test("counts what is open, and what went through, then and afterwards", async () => {
  const none = { accepted: 0, open: 0, refused: 0, bytesIn: 0, bytesOut: 0 };
  expect(publisher.traffic()).toEqual(none);
  publisher.start(doubling);
  const [first, second] = [dial(), dial()];
  first.write("hello");
  await once(first, "data");
  await expect
    .poll(() => publisher.traffic())
    .toEqual({ accepted: 2, open: 2, refused: 0, bytesIn: 5, bytesOut: 10 });
  first.end();
  await expect.poll(() => publisher.traffic().open).toBe(1);
  second.end("x").resume();
  await expect
    .poll(() => publisher.traffic())
    .toEqual({ accepted: 2, open: 0, refused: 0, bytesIn: 6, bytesOut: 12 });
});

test("counts who was not taken", async () => {
  publisher.start(() => Promise.reject(Object.assign(new Error("connect"), { code: "ECONNRESET" })));
  const client = dial();
  await new Promise((resolve) => client.once("close", resolve));
  await expect.poll(() => publisher.traffic()).toMatchObject({ accepted: 1, open: 0, refused: 1 });
});
