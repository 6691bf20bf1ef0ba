/** The app's side of the NSM: limits before the call, errors by name, and the connection to the emulated one. */
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ERRORS } from "../../format/errors.ts";
import { encodeFrame, FrameDecoder } from "../../format/frame.ts";
import {
  decodeNsmRequest,
  encodeNsmResponse,
  NSM_REQUEST_MAX,
  NSM_RESPONSE_MAX,
  type NsmErrorName,
  type NsmRequest,
  type NsmResponse,
} from "../../format/nsm.ts";
import type { VsockSocket } from "../../linux/vsock.ts";
import { attest, NsmError, nsm } from "../../runtime/index.ts";
import { EmulatedModule } from "../../runtime/module.ts";
import { enterEnclave } from "../../runtime/place.ts";
import { NO_VSOCK } from "./parent.ts";

afterEach(() => enterEnclave(undefined));

/** Answer the app's requests; returns what was asked. */
function answering(answer: (request: NsmRequest) => NsmResponse | Uint8Array): NsmRequest[] {
  const asked: NsmRequest[] = [];
  const exchange = async (bytes: Uint8Array) => {
    const request = decodeNsmRequest(bytes);
    asked.push(request);
    const response = answer(request);
    return response instanceof Uint8Array ? response : encodeNsmResponse(response);
  };
  enterEnclave({ debug: false, nsm: { exchange }, vsock: NO_VSOCK });
  return asked;
}

const value = new Uint8Array(48).fill(7);

test("each function is its request, and its answer's fields", async () => {
  const description = {
    ...{ versionMajor: 1, versionMinor: 2, versionPatch: 3, moduleId: "i-1-enc2", maxPcrs: 32 },
    ...{ lockedPcrs: [0, 1], digest: "SHA384" },
  };
  const asked = answering((request) => {
    switch (request.type) {
      case "DescribeNSM":
        return { type: "DescribeNSM", ...description };
      case "DescribePCR":
        return { type: "DescribePCR", lock: true, data: value };
      case "ExtendPCR":
        return { type: "ExtendPCR", data: value };
      case "LockPCR":
      case "LockPCRs":
        return { type: request.type };
      case "GetRandom":
        return { type: "GetRandom", random: value };
      case "Attestation":
        return { type: "Attestation", document: value };
    }
  });
  expect(await nsm.describe()).toEqual(description);
  expect(await nsm.pcr(3)).toEqual({ value, locked: true });
  expect(await nsm.extendPcr(16, Uint8Array.of(1))).toEqual(value);
  expect(await nsm.lockPcr(17)).toBeUndefined();
  expect(await nsm.lockPcrsBelow(18)).toBeUndefined();
  expect(await nsm.random(50)).toEqual(new Uint8Array(50).fill(7));
  expect(await attest({ nonce: Uint8Array.of(1), publicKey: Uint8Array.of(2) })).toEqual(value);
  expect(await attest()).toEqual(value);
  const random = { type: "GetRandom" };
  expect(asked).toEqual([
    ...[{ type: "DescribeNSM" }, { type: "DescribePCR", index: 3 }],
    ...[
      { type: "ExtendPCR", index: 16, data: Uint8Array.of(1) },
      { type: "LockPCR", index: 17 },
    ],
    ...[{ type: "LockPCRs", range: 18 }, random, random],
    { type: "Attestation", nonce: Uint8Array.of(1), publicKey: Uint8Array.of(2), userData: null },
    { type: "Attestation", nonce: null, publicKey: null, userData: null },
  ]);
});

test("byte strings are the caller's own, not views of a larger buffer", async () => {
  answering(() => ({ type: "Attestation", document: value }));
  const document = await attest();
  expect(document.buffer.byteLength).toBe(48);
});

test("a buffer that changes after the call does not change the request", async () => {
  const asked = answering(() => ({ type: "Attestation", document: value }));
  const nonce = Uint8Array.of(1, 2, 3);
  const attested = attest({ nonce });
  nonce.fill(9);
  await attested;
  expect(asked[0]).toMatchObject({ nonce: Uint8Array.of(1, 2, 3) });
});

describe("limits", () => {
  const bytes = (length: number) => new Uint8Array(length);
  test.each<[string, () => Promise<unknown>]>([
    ["nonce of 512", () => attest({ nonce: bytes(512) })],
    ["user data of 512", () => attest({ userData: bytes(512) })],
    [
      "all three at their largest",
      () => attest({ nonce: bytes(512), userData: bytes(512), publicKey: bytes(1024) }),
    ],
    ["nonce and user data of 0", () => attest({ nonce: bytes(0), userData: bytes(0) })],
  ])("%s is asked for", async (_, run) => {
    const asked = answering(() => ({ type: "Attestation", document: value }));
    await run();
    expect(asked).toHaveLength(1);
  });

  const wrong = (given: unknown) => given as never;
  test.each<[string, () => Promise<unknown>, string, string]>([
    [
      "nonce of 513",
      () => attest({ nonce: bytes(513) }),
      "RangeError",
      "attest: nonce: got 513 bytes, expected 0 to 512",
    ],
    ["user data of 513", () => attest({ userData: bytes(513) }), "RangeError", "expected 0 to 512"],
    ["public key of 1025", () => attest({ publicKey: bytes(1025) }), "RangeError", "expected 1 to 1024"],
    ["public key of 0", () => attest({ publicKey: bytes(0) }), "RangeError", "expected 1 to 1024"],
    [
      "a text for a nonce",
      () => attest({ nonce: wrong("text") }),
      "TypeError",
      "nonce: got string, expected a Uint8Array",
    ],
    ["null for a nonce", () => attest({ nonce: wrong(null) }), "TypeError", "nonce: got object"],
    ["register 32", () => nsm.pcr(32), "RangeError", "nsm.pcr(32): got 32, expected an integer from 0 to 31"],
    ["register -1", () => nsm.lockPcr(-1), "RangeError", "expected an integer from 0 to 31"],
    ["register 1.5", () => nsm.extendPcr(1.5, bytes(1)), "RangeError", "expected an integer"],
    ["a text for a register", () => nsm.pcr(wrong("1")), "RangeError", "got 1, expected an integer"],
    [
      "a text to extend with",
      () => nsm.extendPcr(16, wrong("x")),
      "TypeError",
      "nsm.extendPcr(16): data: got string",
    ],
    ["below 33", () => nsm.lockPcrsBelow(33), "RangeError", "from 0 to 32"],
    ["65537 random bytes", () => nsm.random(65_537), "RangeError", "from 0 to 65536"],
    ["a request of 4097", () => nsm.extendPcr(16, bytes(4097)), "RangeError", "expected at most 4096"],
  ])("%s is refused before the module is asked", async (_, run, name, message) => {
    const asked = answering(() => ({ type: "LockPCR" }));
    await expect(run()).rejects.toMatchObject({ name, message: expect.stringContaining(message) });
    expect(asked).toEqual([]);
  });
});

test.each([
  ["InvalidArgument", "E_NSM_INVALID_ARGUMENT"],
  ["InvalidIndex", "E_NSM_INVALID_INDEX"],
  ["InvalidResponse", "E_NSM_INVALID_RESPONSE"],
  ["ReadOnlyIndex", "E_NSM_READ_ONLY_INDEX"],
  ["InvalidOperation", "E_NSM_INVALID_OPERATION"],
  ["BufferTooSmall", "E_NSM_BUFFER_TOO_SMALL"],
  ["InputTooLarge", "E_NSM_INPUT_TOO_LARGE"],
  ["InternalError", "E_NSM_INTERNAL_ERROR"],
] as const satisfies [NsmErrorName, keyof typeof ERRORS][])("the module's %s is %s", async (error, code) => {
  answering(() => ({ type: "Error", error }));
  const refused = await nsm.lockPcr(16).catch((reason: unknown) => reason);
  expect(refused).toBeInstanceOf(NsmError);
  expect(refused).toMatchObject({
    code,
    reason: error,
    message: `nsm.lockPcr(16): got ${error}, expected it done`,
  });
  expect(ERRORS[code].fix).not.toBe("");
});

test.each<[string, NsmResponse | Uint8Array]>([
  ["another command's answer", { type: "LockPCRs" }],
  ["the error Success", { type: "Error", error: "Success" }],
  ["no CBOR", Uint8Array.of(0xff)],
  ["nothing", new Uint8Array(0)],
])("an answer that is %s", async (_, response) => {
  answering(() => response);
  await expect(nsm.lockPcr(16)).rejects.toMatchObject({ code: expect.stringMatching(/^E_(NSM|CBOR)$/) });
});

test("no random bytes at all are an error, not an endless loop", async () => {
  answering(() => ({ type: "GetRandom", random: new Uint8Array(0) }));
  await expect(nsm.random(1)).rejects.toMatchObject({ code: "E_NSM" });
});

test("without an enclave, and in one without a module", async () => {
  await expect(attest()).rejects.toMatchObject({ code: "E_NOT_IN_ENCLAVE" });
  enterEnclave({ debug: false, vsock: NO_VSOCK });
  for (const run of [() => attest(), () => nsm.describe(), () => nsm.pcr(0), () => nsm.random(1)]) {
    await expect(run()).rejects.toMatchObject({ code: "E_NO_NSM" });
  }
});

describe("the emulated module's connection", () => {
  let server: Server;
  let sockets: Socket[] = [];
  let clients: Socket[] = [];
  let onRequest: (socket: Socket, request: Uint8Array) => void;
  let address: string;

  beforeEach(async () => {
    sockets = [];
    clients = [];
    onRequest = (socket, request) => socket.write(encodeFrame(request));
    address = `\0cloister-nsm-test-${process.pid}-${Math.random()}`;
    server = createServer((socket) => {
      sockets.push(socket);
      const decoder = new FrameDecoder(NSM_REQUEST_MAX);
      socket.on("error", () => {});
      socket.on("data", (chunk: Buffer) => {
        for (const request of decoder.push(chunk)) onRequest(socket, request);
      });
    });
    server.listen(address);
    await once(server, "listening");
  });
  afterEach(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });

  const module = () =>
    new EmulatedModule(async () => {
      const socket = connect(address);
      await once(socket, "connect");
      clients.push(socket);
      return socket as VsockSocket;
    });

  test("is one for all requests, and answers come in order", async () => {
    const emulated = module();
    const requests = Array.from({ length: 50 }, (_, i) => new Uint8Array(i * 80).fill(i));
    const answers = await Promise.all(requests.map((request) => emulated.exchange(request)));
    expect(answers).toEqual(requests);
    expect(sockets).toHaveLength(1);
  });

  test.each<[string, (socket: Socket) => void]>([
    ["ends", (socket) => socket.end()],
    ["is cut", (socket) => socket.destroy()],
    ["is cut within an answer", (socket) => socket.end(Uint8Array.of(0, 0, 0, 9, 1))],
    ["brings a length beyond 12288", (socket) => socket.write(Uint8Array.of(0, 0, 0x30, 1))],
  ])("that %s fails its request; the next makes a new one", async (_, misbehave) => {
    const emulated = module();
    onRequest = misbehave;
    await expect(emulated.exchange(Uint8Array.of(1))).rejects.toMatchObject({ code: "E_NSM" });
    onRequest = (socket, request) => socket.write(encodeFrame(request));
    expect(await emulated.exchange(Uint8Array.of(2))).toEqual(Uint8Array.of(2));
    expect(sockets).toHaveLength(2);
  });

  test.each<[string, () => void]>([
    ["ended", () => sockets[0]?.end()],
    ["reset", () => clients[0]?.destroy(new Error("ECONNRESET"))],
  ])("that is %s between two requests is made again", async (_, lose) => {
    const emulated = module();
    await emulated.exchange(Uint8Array.of(1));
    const closed = new Promise((resolve) => clients[0]?.once("close", resolve));
    lose();
    await closed;
    expect(await emulated.exchange(Uint8Array.of(2))).toEqual(Uint8Array.of(2));
    expect(sockets).toHaveLength(2);
  });

  test("a largest answer comes whole; a request over 4096 bytes is EMSGSIZE, as with the driver", async () => {
    const emulated = module();
    const answer = new Uint8Array(NSM_RESPONSE_MAX).fill(3);
    onRequest = (socket) => socket.write(encodeFrame(answer));
    expect(await emulated.exchange(new Uint8Array(NSM_REQUEST_MAX))).toEqual(answer);
    await expect(emulated.exchange(new Uint8Array(NSM_REQUEST_MAX + 1))).rejects.toMatchObject({
      code: "EMSGSIZE",
    });
  });

  test("that cannot be made fails its request alone", async () => {
    let refuse = true;
    const emulated = new EmulatedModule(async () => {
      if (refuse) throw Object.assign(new Error("refused"), { code: "ECONNRESET" });
      const socket = connect(address);
      await once(socket, "connect");
      return socket as VsockSocket;
    });
    await expect(emulated.exchange(Uint8Array.of(1))).rejects.toMatchObject({ code: "ECONNRESET" });
    refuse = false;
    expect(await emulated.exchange(Uint8Array.of(1))).toEqual(Uint8Array.of(1));
  });
});
