import type { Socket } from "node:net";
import { expect, test } from "vitest";
import { CID_PARENT, HEARTBEAT_BYTE, PORT_HEARTBEAT } from "../../format/abi.ts";
import { sendHeartbeat } from "../../init/heartbeat.ts";
import { makeSocketPair } from "../../linux/descriptor.ts";
import { SystemError } from "../../linux/ffi.ts";
import { openStream } from "../../linux/stream.ts";
import { type ConnectOptions, VsockSocket } from "../../linux/vsock.ts";

/** A parent by what it does with each connection; `undefined` refuses it. */
function parent(...behaviours: (((stream: Socket) => void) | string)[]) {
  const asked: ConnectOptions[] = [];
  const connect = async (options: ConnectOptions) => {
    const behaviour = behaviours[Math.min(asked.length, behaviours.length - 1)];
    asked.push(options);
    if (typeof behaviour !== "function") throw new SystemError("connect", numbers[behaviour ?? ""] ?? 0);
    const [ours, theirs] = makeSocketPair();
    behaviour(openStream(theirs));
    return openStream(ours, { allowHalfOpen: true }, VsockSocket);
  };
  return { asked, connect };
}

const numbers: Record<string, number> = { ECONNRESET: 104, ETIMEDOUT: 110, ENODEV: 19 };
const echo = (stream: Socket) => void stream.pipe(stream);

test("sends the byte to the parent's heartbeat port and takes its echo", async () => {
  const received: Buffer[] = [];
  const { asked, connect } = parent((stream) => {
    stream.on("data", (data: Buffer) => received.push(data));
    echo(stream);
  });
  await sendHeartbeat(connect);
  expect(asked).toMatchObject([{ cid: CID_PARENT, port: PORT_HEARTBEAT }]);
  expect(Buffer.concat(received)).toEqual(Buffer.of(HEARTBEAT_BYTE));
});

test.each(["ECONNRESET", "ETIMEDOUT"])("tries again after %s", async (code) => {
  const { asked, connect } = parent(code, code, echo);
  await sendHeartbeat(connect);
  expect(asked.length).toBe(3);
});

test("gives up on a parent that keeps refusing", async () => {
  const { asked, connect } = parent("ECONNRESET");
  await expect(sendHeartbeat(connect)).rejects.toMatchObject({ code: "ECONNRESET" });
  expect(asked.length).toBe(10);
});

test.each([
  ["no device", "ENODEV", "ENODEV"],
  ["another byte", (stream: Socket) => void stream.end(Uint8Array.of(0xb8)), "got 0xb8, expected 0xb7"],
  ["an end without a byte", (stream: Socket) => void stream.end(), "closed without one"],
])("fails at once on %s", async (_, behaviour, message) => {
  const { asked, connect } = parent(behaviour);
  await expect(sendHeartbeat(connect)).rejects.toThrow(message);
  expect(asked.length).toBe(1);
});
