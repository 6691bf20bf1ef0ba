/**
 * `cloister dev` as a person has it, in a terminal: one enclave, whose app is saved again and again, broken and mended; its
 * documents; its inspector; then a change of the configuration, which wants a second enclave, and the end.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { decodePem } from "../../format/certificate.ts";
import { fingerprint, verifyAttestation } from "../../format/verify.ts";
import { DevSession } from "../dev/session.ts";

const fetchApp = (text: string) => `import { nsm } from "cloister/runtime";
console.log("loaded", ${JSON.stringify(text)});
export default {
  async fetch(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    if (pathname === "/mark") return Response.json(await nsm.pcr(31));
    if (pathname === "/die") setTimeout(() => { throw new Error("later"); });
    return new Response(${JSON.stringify(text)} + " " + process.env.MODE);
  },
};
`;
const serverApp = (text: string) => `import { createServer } from "node:http";
createServer((_, response) => response.end(${JSON.stringify(text)})).listen(8080);
`;
const config = (mode: string) => `export default { memory: "256M", env: { MODE: "${mode}" } };\n`;

let session: DevSession;
let url: string;
let inspector: string;

beforeAll(async () => {
  const files = { "app.ts": fetchApp("one"), "cloister.config.ts": config("a") };
  session = new DevSession(files, ["--publish", "127.0.0.1:0:8080", "--inspect-port", "0"]);
  const { ports } = await session.next("published");
  const place = (vsockPort: number) =>
    `http://127.0.0.1:${ports.find((port) => port.vsockPort === vsockPort)?.port}`;
  url = place(8080);
  inspector = place(100_002);
});

afterAll(() => session?.[Symbol.asyncDispose]());

afterEach(({ task }) => {
  if (task.result?.state === "fail") console.error(session.story());
});

/** The app's answer. Its own connection: the generation before keeps the ones that it has. */
const get = async (path = "/") =>
  await (await fetch(`${url}${path}`, { headers: { connection: "close" } })).text();

test("a request that comes before the app is there waits for it", async () => {
  expect(await get()).toBe("one a");
  expect(await session.next("measured")).toMatchObject({
    measurements: { PCR0: expect.stringMatching(/^[0-9a-f]{96}$/) },
  });
  expect(await session.next("serving")).toMatchObject({ elapsedMs: expect.any(Number) });
});

test("its documents are refused, unless development is allowed", async () => {
  const nonce = crypto.getRandomValues(new Uint8Array(32));
  const question = `${url}/.well-known/attestation?nonce=${Buffer.from(nonce).toString("hex")}`;
  const document = new Uint8Array(await (await fetch(question)).arrayBuffer());
  const root = decodePem(readFileSync(join(session.data, "root.pem")));
  const measured = session.events.find((event) => event.type === "measured");
  const options = { pcrs: { ...measured?.measurements }, nonce, roots: [await fingerprint(root)] };
  await expect(verifyAttestation(document, options)).rejects.toMatchObject({
    code: "E_ATTESTATION_DEVELOPMENT",
  });
  const allowed = { ...options, dangerouslyAllowDevelopment: true };
  expect((await verifyAttestation(document, allowed)).steps.length).toBe(12);
  // Whatever generation runs: it cannot take the mark away.
  expect(JSON.parse(await get("/mark"))).toMatchObject({ locked: true });
});

test("a save is served by the running enclave, and no request is lost meanwhile", async () => {
  let isOver = false;
  const answers = new Set<string>();
  const asking = (async () => {
    while (!isOver) answers.add(await get());
  })();
  session.save("app.ts", fetchApp("two"));
  await session.next("serving");
  isOver = true;
  await asking;
  expect(await get()).toBe("two a");
  expect([...answers].sort()).toEqual(expect.arrayContaining(["one a"]));
  expect([...answers].filter((answer) => !/^(one|two) a$/.test(answer))).toEqual([]);
  expect(session.events.filter(({ type }) => type === "start")).toHaveLength(1);
});

test("an error of the source is shown where it is, and the app before serves on", async () => {
  session.save("app.ts", `${fetchApp("three")}const x = ;\n`);
  expect(await session.next("failed")).toMatchObject({
    error: { code: "E_BUNDLE", message: expect.stringMatching(/^app\.ts:11: /) },
  });
  expect(await get()).toBe("two a");
  session.save("app.ts", fetchApp("three"));
  await session.next("serving");
  expect(await get()).toBe("three a");
});

test("an app that throws at its start is told with its line, and the app before serves on", async () => {
  session.save("app.ts", `console.log("so far");\n\nthrow new Error("at start");\n`);
  expect(await session.next("ended")).toMatchObject({ status: 1, reason: "load", replaced: true });
  const logs = session.events.flatMap((event) => (event.type === "log" ? event.text : []));
  expect(logs.join("\n")).toMatch(/Error: at start\n\s+at <anonymous> \(\/app\/app\.ts:3:/);
  expect(await get()).toBe("three a");
});

test("an app with a server of its own hands its port over too", async () => {
  for (const text of ["four", "five"]) {
    session.save("app.ts", serverApp(text));
    await session.next("serving");
    expect(await get()).toBe(text);
  }
});

test("a debugger reaches the app", async () => {
  const [target] = (await (await fetch(`${inspector}/json/list`)).json()) as {
    webSocketDebuggerUrl: string;
  }[];
  expect(target?.webSocketDebuggerUrl).toContain(new URL(inspector).host);
  const socket = new WebSocket(target?.webSocketDebuggerUrl ?? "");
  const answer = Promise.withResolvers<string>();
  socket.onopen = () =>
    socket.send(
      JSON.stringify({ id: 1, method: "Runtime.evaluate", params: { expression: "process.argv[1]" } }),
    );
  socket.onmessage = ({ data }) => answer.resolve(String(data));
  socket.onerror = () => answer.reject(new Error("no connection"));
  expect(JSON.parse(await answer.promise)).toMatchObject({
    id: 1,
    result: { result: { value: "/app/main.mjs" } },
  });
  socket.close();
});

test("an app that ends by itself is told; its port refuses; the next save serves", async () => {
  session.save("app.ts", fetchApp("six"));
  await session.next("serving");
  await get("/die");
  expect(await session.next("ended")).toMatchObject({ status: 1, reason: "exception", replaced: false });
  await expect(get()).rejects.toThrow("fetch failed");
  session.press("b");
  await session.next("serving");
  expect(await get()).toBe("six a");
});

test("another configuration wants another enclave, and says why", async () => {
  const before = session.events.find((event) => event.type === "measured");
  session.save("cloister.config.ts", config("b"));
  expect(await session.next("start")).toMatchObject({ reason: "env changed" });
  const { measurements } = await session.next("measured");
  expect(measurements.PCR2).not.toBe(before?.measurements.PCR2);
  await session.next("serving");
  expect(await get()).toBe("six b");
});

test("q ends it, and the app before that", async () => {
  session.press("q");
  expect(await session.exited).toBe(0);
  await expect(get()).rejects.toThrow("fetch failed");
});
