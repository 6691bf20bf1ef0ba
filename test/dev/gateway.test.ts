import { once } from "node:events";
import { type AddressInfo, connect as connectTcp, createServer } from "node:net";
import { Duplex } from "node:stream";
import { text } from "node:stream/consumers";
import { expect, test } from "vitest";
import { publishBare } from "../../dev/bare/publish.ts";
import { defaultPorts, Gateway, type Listen } from "../../dev/gateway.ts";
import { CloisterError } from "../../format/errors.ts";
import type { VsockStream } from "../../launcher/device.ts";

/** What an app does with a connection: it answers with the port and ends. */
function answer(port: number): VsockStream {
  const stream = new Duplex({
    read() {
      this.push(`port ${port}`);
      this.push(null);
    },
    write: (_chunk, _encoding, done) => done(),
  });
  return Object.assign(stream, { remoteCid: 16, remotePort: port });
}

function refused(): Error {
  return Object.assign(new Error("refused"), { code: "ECONNRESET" });
}

async function ask(gateway: Gateway, index = 0): Promise<string> {
  const { address = "", port = 0 } = gateway.ports[index] ?? {};
  const socket = connectTcp(port, address);
  try {
    return await text(socket);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? "";
  }
}

const free = [{ port: 0, vsockPort: 8080, strict: true }];

test("each port of the configuration has its number, and one that TCP has not any", () => {
  expect(defaultPorts([8080, 70_000])).toEqual([
    { port: 8080, vsockPort: 8080, strict: false },
    { port: 0, vsockPort: 70_000, strict: false },
  ]);
});

test("connections wait for an app that is being replaced, and fail where there is none", async () => {
  let isThere = false;
  const asked: number[] = [];
  const connect = async (port: number) => {
    asked.push(port);
    if (!isThere) throw refused();
    return answer(port);
  };
  using gateway = await Gateway.open(free, { key: "", listen: publishBare, connect });
  const waiting = ask(gateway);
  await expect.poll(() => asked.length).toBeGreaterThan(2);
  isThere = true;
  expect(await waiting).toBe("port 8080");
  isThere = false;
  gateway.state = "serving";
  // An app that serves, but not on this port.
  expect(await ask(gateway)).toBe("ECONNRESET");
  gateway.state = "waiting";
  const second = ask(gateway);
  gateway.state = "down";
  expect(await second).toBe("ECONNRESET");
  // The enclave would take it, and leave it to an app that may never come.
  isThere = true;
  expect(await ask(gateway)).toBe("ECONNRESET");
});

test("what is no refusal is not tried again", async () => {
  let count = 0;
  const connect = async (): Promise<VsockStream> => {
    count++;
    throw Object.assign(new Error("late"), { code: "ETIMEDOUT" });
  };
  using gateway = await Gateway.open(free, { key: "", listen: publishBare, connect });
  expect(await ask(gateway)).toBe("ECONNRESET");
  expect(count).toBe(1);
});

test("a port that another program has is a free one instead, unless it was asked for", async () => {
  const other = createServer().listen(0, "127.0.0.1");
  await once(other, "listening");
  const { port } = other.address() as AddressInfo;
  const options = { key: "", listen: publishBare, connect: async (wanted: number) => answer(wanted) };
  const wanted = { port, vsockPort: 8080 };
  {
    using gateway = await Gateway.open([{ ...wanted, strict: false }], options);
    expect(gateway.ports[0]).toMatchObject({ taken: port, vsockPort: 8080 });
    expect(gateway.ports[0]?.port).not.toBe(port);
    expect(await ask(gateway)).toBe("port 8080");
  }
  const opened: number[] = [];
  const listen: Listen = async (place) => {
    const publisher = await publishBare(place);
    opened.push(publisher.port);
    return publisher;
  };
  const failed = await Gateway.open([...free, { ...wanted, strict: true }], { ...options, listen }).catch(
    (error) => error,
  );
  expect(failed).toBeInstanceOf(CloisterError);
  expect(failed.code).toBe("E_PORT_TAKEN");
  const [socket] = opened.map((closed) => connectTcp(closed, "127.0.0.1"));
  const [error] = await once(socket ?? other, "error");
  expect(error.code).toBe("ECONNREFUSED");
  other.close();
});
