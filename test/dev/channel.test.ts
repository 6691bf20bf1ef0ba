/** The parent's end of the development channel, with an enclave that says what it likes. */
import { once } from "node:events";
import { type Duplex, duplexPair } from "node:stream";
import fc from "fast-check";
import { expect, test } from "vitest";
import { Channel, connectChannel } from "../../dev/channel.ts";
import {
  type DevelopmentReport,
  encodeReport,
  type Replacement,
  ReplacementDecoder,
} from "../../format/development.ts";
import type { CloisterError } from "../../format/errors.ts";
import { encodeFrame } from "../../format/frame.ts";
import { concat } from "../../format/struct.ts";
import type { VsockStream } from "../../launcher/device.ts";
import type { AppFile } from "../../packer/bundle.ts";

const file = (path: string, text: string, executable = false): AppFile => {
  return { path, data: new TextEncoder().encode(text), executable };
};
const IMAGE = [file("main.mjs", "one"), file("tool", "x"), file("old.png", "o")];
const REPORT: DevelopmentReport = { type: "serving", generation: 1, ports: [8080] };

interface Pair {
  readonly channel: Channel;
  readonly parent: VsockStream;
  readonly enclave: Duplex;
  readonly reports: readonly DevelopmentReport[];
  readonly faults: readonly CloisterError[];
}

function open(): Pair {
  const [near, enclave] = duplexPair();
  const parent = Object.assign(near, { remoteCid: 16, remotePort: 1 });
  const reports: DevelopmentReport[] = [];
  const faults: CloisterError[] = [];
  const channel = new Channel(parent, IMAGE, {
    onReport: (report) => reports.push(report),
    onFault: (error) => faults.push(error),
  });
  return { channel, parent, enclave, reports, faults };
}

test("sends what differs from what it sent before", async () => {
  const { channel, enclave } = open();
  const decoder = new ReplacementDecoder();
  const heard: Replacement[] = [];
  enclave.on("data", (chunk: Buffer) => heard.push(...decoder.push(chunk)));
  channel.send(1, [file("main.mjs", "two"), file("tool", "x", true)]);
  channel.send(2, [file("main.mjs", "two"), file("tool", "x", true), file("new", "")]);
  await expect.poll(() => heard.length).toBe(2);
  const paths = heard.map(({ generation, files, removed }) => [
    generation,
    files.map(({ path }) => path),
    removed,
  ]);
  expect(paths).toEqual([
    [1, ["main.mjs", "tool"], ["old.png"]],
    [2, ["new"], []],
  ]);
});

test("an enclave that closes it is no fault", async () => {
  const { channel, parent, enclave, faults } = open();
  enclave.end(encodeReport(REPORT));
  await once(parent, "close");
  expect([channel.isOpen, faults]).toEqual([false, []]);
});

test.each([
  [
    "a length without end",
    Uint8Array.of(0xff, 0xff, 0xff, 0xff),
    "got 4294967295 bytes, expected at most 65536",
  ],
  ["no JSON", encodeFrame(Uint8Array.of(0x7b)), "expected JSON"],
  [
    "a reason for the terminal",
    encodeFrame(
      Buffer.from(
        JSON.stringify({
          ...{ type: "ended", generation: 1, status: 1, reason: "\u001b]0;x", replaced: false },
        }),
      ),
    ),
    "reason: got",
  ],
])("%s ends it, once, and what came before counts", async (_, bytes, message) => {
  const { channel, parent, enclave, reports, faults } = open();
  enclave.on("error", () => {});
  enclave.write(concat([encodeReport(REPORT), bytes, encodeReport(REPORT)]));
  enclave.write(bytes);
  await once(parent, "close");
  expect(faults.map(({ code }) => code)).toEqual(["E_DEVELOPMENT"]);
  expect(faults[0]?.message).toContain(message);
  expect(reports).toEqual([REPORT]);
  expect(channel.isOpen).toBe(false);
});

test("whatever an enclave says, it is heard or it is a fault", async () => {
  const good = concat([REPORT, REPORT].map(encodeReport));
  const hostile = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.tuple(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 })).map(([at, bits]) => {
      const changed = good.slice();
      changed[at] = (changed[at] ?? 0) ^ bits;
      return changed;
    }),
  );
  await fc.assert(
    fc.asyncProperty(hostile, async (bytes) => {
      const { channel, parent, enclave, faults } = open();
      enclave.on("error", () => {});
      enclave.end(bytes);
      await once(parent, "close");
      expect(channel.isOpen).toBe(false);
      expect(faults.length).toBeLessThan(2);
    }),
    { numRuns: 500 },
  );
});

test("it is awaited while it is refused, and for as long as there is an enclave", async () => {
  const { parent } = open();
  let tries = 0;
  const refuse = () => Promise.reject(Object.assign(new Error("refused"), { code: "ECONNRESET" }));
  const connect = () => (++tries < 3 ? refuse() : Promise.resolve(parent));
  const { signal } = new AbortController();
  expect(await connectChannel(connect, signal)).toBe(parent);
  const gone = new AbortController();
  const waiting = connectChannel(refuse, gone.signal);
  gone.abort();
  await expect(waiting).rejects.toThrow("abort");
  const late = () => Promise.reject(Object.assign(new Error("late"), { code: "ETIMEDOUT" }));
  await expect(connectChannel(late, signal)).rejects.toThrow("late");
});
