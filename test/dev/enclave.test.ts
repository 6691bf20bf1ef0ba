/** createEnclave: the same checks of one enclave in either mode, of which one boots a VM. */

import { once } from "node:events";
import { createServer } from "node:net";
import { afterAll, beforeAll, describe, expect, onTestFailed, test } from "vitest";
import { createEnclave, type TestEnclave } from "../../dev/emulator.ts";
import "../../dev/vitest.ts";
import { verifyAttestation } from "../../format/verify.ts";
import { type Folder, makeProject } from "./app.ts";

const NONCE = Buffer.alloc(32, 7);

describe.each(["bare", "vm"] as const)("%s", (mode) => {
  let project: Folder;
  let enclave: TestEnclave;
  const greetings: string[] = [];
  // Those of a VM, where each starts another Node for seconds, are in test/e2e/egress.test.ts.
  const threads = mode === "bare" ? ["/worker", "/child"] : [];

  beforeAll(async () => {
    project = makeProject();
    enclave = await createEnclave({
      directory: project.directory,
      mode,
      config: {
        memory: "256M",
        egress: ["api.test:443", "plain.test:80", "raw.test:7000"],
        redact: ["/s[e]cret/"],
        env: { GREETING: "hi" },
      },
      egress: {
        mocks: {
          "api.test:443": { fetch: (request) => new Response(`mock of ${request.url}`) },
          "plain.test:80": { fetch: async (request) => new Response(`plain ${await request.text()}`) },
          "raw.test:7000": (socket) =>
            socket.once("data", (data) => {
              greetings.push(String(data));
              socket.end("HTTP/1.1 204 x\r\n\r\n");
            }),
        },
      },
      timeoutMs: 240_000,
    });
  });
  afterAll(async () => {
    await enclave?.[Symbol.asyncDispose]();
    project?.[Symbol.dispose]();
  });

  const text = async (path: string, body?: string) => {
    const response = await enclave.fetch(path, body === undefined ? {} : { method: "POST", body });
    return await response.text();
  };
  const check = (name: string, run: () => Promise<void>) =>
    test(name, async () => {
      onTestFailed(() => console.error(enclave.story()));
      await run();
    });

  check("answers requests of every kind, on each of its ports, and reads its environment", async () => {
    expect(enclave.mode).toBe(mode);
    expect(await (await enclave.fetch("/")).json()).toEqual({ hello: "world" });
    const request = new Request("http://enclave/echo", {
      method: "PUT",
      body: new Uint8Array(300_000).fill(1),
    });
    const echoed = await enclave.fetch(request);
    expect([echoed.status, echoed.headers.get("x-method")]).toEqual([200, "PUT"]);
    expect((await echoed.bytes()).length).toBe(300_000);
    expect((await enclave.fetch("/nothing")).status).toBe(404);
    expect((await enclave.fetch("/", { method: "HEAD" })).body).toBeNull();
    expect(await text("http://enclave:3000/")).toBe("second");
    expect(JSON.parse(await text("/env"))).toMatchObject({ GREETING: "hi", NODE_ENV: "production" });
    expect(Object.keys(JSON.parse(await text("/env"))).sort()).not.toContain("USER");
  });

  check("an error of the app's is its log's, with the line in its source", async () => {
    expect((await enclave.fetch("/throw")).status).toBe(500);
    await enclave.waitForLog("Error: boom");
    expect((await enclave.waitForLog(/app\.ts:\d+:\d+/)).source).toBe("stderr");
    expect(enclave.logs.map(({ text }) => text)).toContain("hello from the app");
  });

  check("connects to vsock ports; where nobody listens, that is refused", async () => {
    const socket = await enclave.connect(5000);
    socket.end("ping");
    expect(String(Buffer.concat(await socket.toArray()))).toBe("ping");
    await expect(enclave.connect(5001)).rejects.toMatchObject({ code: "ECONNRESET" });
    expect(await text("/parent")).toBe("ECONNRESET");
  });

  check("is attested under its own root", async () => {
    const { PCR0 } = enclave.measurements;
    expect(JSON.parse(await text("/pcr"))).toEqual({ value: PCR0, debug: false });
    const document = await (
      await enclave.fetch("/attest", { method: "POST", body: NONCE.toString("hex") })
    ).bytes();
    const trust = await enclave.trust();
    expect((await verifyAttestation(document, { ...trust, nonce: NONCE })).document.moduleId).toMatch(/-enc/);
    await expect(verifyAttestation(document, { pcrs: trust.pcrs, nonce: NONCE })).rejects.toMatchObject({
      code: "E_ATTESTATION_ROOT",
    });
  });

  check("has the measurements of its image, where it has one", async () => {
    if (mode === "bare") {
      await expect(expect(enclave).toHaveMeasurements(enclave.measurements)).rejects.toThrow("has no image");
      return;
    }
    await expect(enclave).toHaveMeasurements(enclave.measurements);
    await expect(enclave).not.toHaveMeasurements({ PCR0: enclave.measurements.PCR1 });
  });

  check("mocks answer in place of what the list has, TLS and all", async () => {
    expect(await text("/out", "https://api.test/path")).toBe("mock of https://api.test/path");
    expect(await text("/out", "http://plain.test/")).toBe("plain ");
    expect(await text("/out", "http://raw.test:7000/")).toBe("");
    expect(greetings.join("")).toMatch(/^GET \/ HTTP/);
    for (const way of threads) {
      expect(await text(way, "https://api.test/thread")).toBe("mock of https://api.test/thread");
    }
  });

  check("what the list does not have is denied, and said", async () => {
    for (const way of ["/out", ...threads]) {
      expect(await text(way, "https://other.test/")).toBe("E_EGRESS_DENIED");
    }
    await enclave.waitForLog("E_EGRESS_DENIED: connect other.test:443");
  });

  check("its loopback is its own", async () => {
    expect(await text("/out", "http://127.0.0.1:3000/")).toBe("second");
    expect(await text("/out", "http://localhost:3000/")).toBe("second");
    expect(await text("/tcp")).toBe("EADDRINUSE");
    expect(JSON.parse(await text("/address"))).toMatchObject({ port: 4000 });
    await using server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as { readonly port: number };
    expect(await text("/out", `http://127.0.0.1:${port}/`)).toBe("ECONNREFUSED");
  });

  check("a stalled NSM holds up its askers and nobody else", async () => {
    enclave.faults.stallNsm();
    let answered = false;
    const pcr = text("/pcr").finally(() => {
      answered = true;
    });
    expect(JSON.parse(await text("/"))).toEqual({ hello: "world" });
    expect(answered).toBe(false);
    enclave.faults.resumeNsm();
    expect(JSON.parse(await pcr)).toMatchObject({ debug: false });
  });

  check("without its parent it serves on, and nothing leaves it", async () => {
    enclave.faults.dropParent();
    expect(await text("/out", "https://api.test/")).toBe("E_EGRESS_PROXY");
    expect(JSON.parse(await text("/"))).toEqual({ hello: "world" });
    enclave.faults.restoreParent();
    // The control channel is back when what the app says arrives.
    await text("/say");
    await enclave.waitForLog("still here, with a [redacted]");
    expect(await text("/out", "https://api.test/")).toBe("mock of https://api.test/");
  });

  check("documents have the skewed clock's time", async () => {
    enclave.faults.skewClock(600_000);
    const document = await (
      await enclave.fetch("/attest", { method: "POST", body: NONCE.toString("hex") })
    ).bytes();
    const trust = await enclave.trust();
    await verifyAttestation(document, { ...trust, nonce: NONCE });
    await expect(
      verifyAttestation(document, { ...trust, now: Date.now(), nonce: NONCE }),
    ).rejects.toMatchObject({ code: "E_ATTESTATION_TIME" });
    enclave.faults.skewClock(0);
  });

  check("its end is told", async () => {
    await expect(text("/exit")).rejects.toThrow();
    expect(await enclave.exited).toMatchObject({ kind: "app", status: 7, reason: "exit" });
    await expect(enclave.waitForLog("never said")).rejects.toThrow("and the enclave ended");
  });
});
