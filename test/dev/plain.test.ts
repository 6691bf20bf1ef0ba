/** `cloister dev --bare`: the process that waits for the next build, and a session in a terminal. */
import { once } from "node:events";
import { existsSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { PassThrough } from "node:stream";
import { text as readText } from "node:stream/consumers";
import { expect, onTestFailed, onTestFinished, test } from "vitest";
import { main } from "../../cli/main.ts";
import { type Standby, startStandby } from "../../dev/bare/index.ts";
import { PlainBackend } from "../../dev/plain.ts";
import { bundleApp } from "../../packer/bundle.ts";
import { loadProject } from "../../packer/project.ts";
import { makeProject } from "./app.ts";
import { DevSession } from "./session.ts";

const app = (text: string) => `console.log("pid", process.pid, process.env.MODE, process.cwd());
export default { fetch: () => new Response(${JSON.stringify(text)} + " " + process.pid) };
`;

test("one that waits ends when it is no longer wanted, and leaves no folder", async () => {
  const standby = await startStandby();
  expect([standby.isAlive, existsSync(standby.folder)]).toEqual([true, true]);
  standby[Symbol.dispose]();
  await standby.closed;
  expect([standby.isAlive, existsSync(standby.folder)]).toEqual([false, false]);
});

/** A backend of a project, and what its app said. */
async function open(prepare: () => Promise<Standby> = startStandby) {
  const { directory, ...made } = makeProject({ "app.ts": app("one") });
  onTestFinished(() => made[Symbol.dispose]());
  const lines: string[] = [];
  const ignore = () => {};
  const backend = new PlainBackend({
    ...{ prepare, onStart: ignore, onMeasured: ignore, onEnded: ignore },
    onEvent: (event) => void (event.type === "log" && lines.push(event.text)),
  });
  onTestFinished(() => backend[Symbol.asyncDispose]());
  const run = async (mode: string) => {
    const project = await loadProject({ directory, overrides: { env: { MODE: mode } } });
    return await backend.run({ project, bundle: await bundleApp(project) }).then(({ kind }) => kind);
  };
  return { run, lines };
}

test("each build has a process of its own, with what is configured when it runs", async () => {
  const { run, lines } = await open();
  const words: string[][] = [];
  for (const mode of ["a", "b", "c"]) {
    expect(await run(mode)).toBe("serving");
    await expect.poll(() => lines.at(-1)).toContain(` ${mode} `);
    words.push(lines.at(-1)?.split(" ") ?? []);
  }
  expect(new Set(words.map(([, pid]) => pid)).size).toBe(3);
  expect(new Set(words.map(([, , , folder]) => folder)).size).toBe(3);
});

test("the next build's process is there before it, and is the one that runs it", async () => {
  const waiting: Standby[] = [];
  const { run, lines } = await open(async () => {
    const standby = await startStandby();
    waiting.push(standby);
    return standby;
  });
  await expect.poll(() => waiting.length).toBe(1);
  for (const mode of ["a", "b"]) {
    const { pid } = waiting.at(-1)?.child ?? {};
    const count = waiting.length;
    expect(await run(mode)).toBe("serving");
    await expect.poll(() => lines.at(-1)).toContain(`pid ${pid} ${mode} `);
    await expect.poll(() => waiting.length).toBe(count + 1);
  }
});

test("one that died while it waited, or that could not be started, is done without", async () => {
  const { run } = await open(async () => {
    const standby = await startStandby();
    standby.child.kill("SIGKILL");
    await standby.exited;
    return standby;
  });
  expect(await run("a")).toBe("serving");
  const without = await open(() => Promise.reject(new Error("no more processes")));
  expect(await without.run("a")).toBe("serving");
});

test("a person saves, presses r, and debugs", async () => {
  const words = ["--bare", "--publish", "127.0.0.1:0:8080", "--inspect-port", "0"];
  await using session = new DevSession({ "app.ts": app("one") }, words);
  onTestFailed(() => console.error(session.story()));
  const { ports } = await session.next("published");
  const get = async () => {
    const url = `http://127.0.0.1:${ports[0]?.port}`;
    return (await (await fetch(url, { headers: { connection: "close" } })).text()).split(" ");
  };
  const [text, first] = await get();
  await session.next("serving");
  expect(text).toBe("one");
  session.save("app.ts", app("two"));
  await session.next("serving");
  const [saved, second] = await get();
  expect(saved).toBe("two");
  session.press("r");
  await session.next("serving");
  const [restarted, third] = await get();
  expect(restarted).toBe("two");
  expect(new Set([first, second, third]).size).toBe(3);
  const told = session.events.flatMap((event) => (event.type === "log" ? event.text : []));
  const inspector =
    told
      .findLast((line) => line.startsWith("Debugger listening on "))
      ?.split(" ")
      .at(-1) ?? "";
  expect(await evaluate(inspector, "process.pid")).toBe(Number(third));
  session.press("q");
  expect(await session.exited).toBe(0);
});

/** By the Chrome DevTools Protocol, Runtime.evaluate. */
async function evaluate(inspector: string, expression: string): Promise<unknown> {
  const socket = new WebSocket(inspector);
  const answer = Promise.withResolvers<string>();
  socket.onopen = () =>
    socket.send(JSON.stringify({ id: 1, method: "Runtime.evaluate", params: { expression } }));
  socket.onmessage = ({ data }) => answer.resolve(String(data));
  socket.onerror = () => answer.reject(new Error("no connection"));
  const { result } = JSON.parse(await answer.promise);
  socket.close();
  return result.result.value;
}

test("a port that was asked for and is taken ends it, with its number", async () => {
  const { directory, ...made } = makeProject({ "app.ts": app("one") });
  onTestFinished(() => made[Symbol.dispose]());
  await using other = createServer().listen(0, "127.0.0.1");
  await once(other, "listening");
  const { port } = other.address() as AddressInfo;
  const output = new PassThrough();
  const io = {
    ...{ stdout: output, stderr: output, env: {}, directory },
    signal: new AbortController().signal,
  };
  expect(await main(["dev", "--bare", "--publish", `127.0.0.1:${port}:8080`], io)).not.toBe(0);
  output.end();
  const told = await readText(output);
  expect(told).toMatch(new RegExp(`error E_PORT_TAKEN: 127\\.0\\.0\\.1:${port}: .*expected a free port`));
  expect(told).not.toContain("waiting for the next save");
});
