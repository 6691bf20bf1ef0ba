/** The loop with a backend that runs nothing: which builds reach it, and what is told. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Backend, BackendEvents, Build, Outcome } from "../../dev/backend.ts";
import type { LoopEvent } from "../../dev/event.ts";
import { DevLoop } from "../../dev/loop.ts";

class FakeBackend implements Backend {
  readonly events: BackendEvents;
  readonly runs: { code: string; cpus: number; fresh: boolean; settle: (outcome: Outcome) => void }[] = [];

  constructor(events: BackendEvents) {
    this.events = events;
  }

  run({ project, bundle }: Build, { fresh }: { readonly fresh: boolean }): Promise<Outcome> {
    const { promise, resolve } = Promise.withResolvers<Outcome>();
    const main = bundle.files.find(({ path }) => path === bundle.entry);
    const code = Buffer.from(main?.data ?? []).toString();
    this.runs.push({ code, cpus: project.config.cpus, fresh, settle: resolve });
    return promise;
  }

  connect(): Promise<never> {
    return Promise.reject(Object.assign(new Error(), { code: "ECONNRESET" }));
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

const SERVING = { kind: "serving", ports: [8080] } as const;

let folder: string;
let told: LoopEvent[];
let backend: FakeBackend;
let loop: DevLoop;

const save = (name: string, text: string) => writeFileSync(join(folder, name), text);
const app = (text: string) => save("app.ts", `console.log(${JSON.stringify(text)});\n`);
const runs = (count: number) => expect.poll(() => backend.runs.length, { timeout: 30_000 }).toBe(count);
const tells = (type: LoopEvent["type"]) =>
  expect.poll(() => told.findLast((event) => event.type === type), { timeout: 30_000 });

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "cloister-loop-"));
  save("package.json", '{"type":"module"}');
  app("one");
  told = [];
  loop = new DevLoop({
    directory: folder,
    publish: [],
    listen: () => () => Promise.reject(new Error("nothing to publish")),
    createBackend: (events) => {
      backend = new FakeBackend(events);
      return backend;
    },
    onEvent: (event) => told.push(event),
  });
  await loop.start();
});

afterEach(async () => {
  await loop[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

test("a save is built and run; what does not differ is not", async () => {
  expect(backend.runs[0]?.code).toContain('console.log("one")');
  backend.runs[0]?.settle(SERVING);
  await tells("serving").toMatchObject({ elapsedMs: expect.any(Number) });
  app("two");
  await runs(2);
  expect(backend.runs[1]).toMatchObject({ code: expect.stringContaining('"two"'), fresh: false });
  backend.runs[1]?.settle(SERVING);
  await expect.poll(() => told.filter(({ type }) => type === "serving").length).toBe(2);
  save("app.ts", 'console.log("two"); // a comment\n');
  await tells("unchanged").toBeDefined();
  loop.restart({ fresh: true });
  await runs(3);
  expect(backend.runs[2]?.fresh).toBe(true);
});

test("of two builds only the later one is told", async () => {
  app("two");
  await runs(2);
  backend.runs[1]?.settle(SERVING);
  await tells("serving").toBeDefined();
  backend.runs[0]?.settle({ kind: "ended", status: 1, reason: "load", replaced: false });
  app("three");
  await runs(3);
  expect(told.some(({ type }) => type === "ended")).toBe(false);
});

test("after an app that ended, the same source is run again", async () => {
  backend.runs[0]?.settle({ kind: "ended", status: 1, reason: "load", replaced: false });
  await tells("ended").toMatchObject({ status: 1, reason: "load", replaced: false });
  app("one");
  await runs(2);
  backend.runs[1]?.settle(SERVING);
  await tells("serving").toBeDefined();
  backend.events.onEnded({ status: 0, reason: "return" });
  await tells("ended").toMatchObject({ status: 0, reason: "return" });
});

test("a file that is missing is found when it comes; a configuration that is wrong when it is mended", async () => {
  save("app.ts", 'import { x } from "./x.ts";\nconsole.log(x);\n');
  await tells("failed").toMatchObject({ error: { code: "E_BUNDLE" } });
  save("x.ts", 'export const x = "there";\n');
  await runs(2);
  expect(backend.runs[1]?.code).toContain('"there"');
  save("cloister.config.ts", "export default { cpus: 0 };\n");
  await tells("failed").toMatchObject({ error: { code: "E_CONFIG" } });
  save("cloister.config.ts", "export default { cpus: 1 };\n");
  await runs(3);
});

test("what the configuration imports is the configuration's, also what is wrong with it", async () => {
  mkdirSync(join(folder, "settings"));
  save("settings/size.ts", "export const cpus = 1;\n");
  save("cloister.config.ts", 'import { cpus } from "./settings/size.ts";\nexport default { cpus };\n');
  await runs(2);
  save("settings/size.ts", "export const cpus = 2;\n");
  await runs(3);
  expect(backend.runs.map(({ cpus }) => cpus)).toEqual([2, 1, 2]);
  for (const [wrong, code] of [
    ["export const cpus = ;\n", "E_BUNDLE"],
    ["export const cpus = 0;\n", "E_CONFIG"],
  ] as const) {
    save("settings/size.ts", wrong);
    await tells("failed").toMatchObject({ error: { code } });
    save("settings/size.ts", `export const cpus = ${backend.runs.length};\n`);
    await runs(backend.runs.length + 1);
  }
});

test("a backend that cannot start anything is told, and the loop goes on", async () => {
  const run = backend.run.bind(backend);
  backend.run = () => Promise.reject(new Error("no machine"));
  app("two");
  await tells("failed").toMatchObject({ error: { message: "no machine" } });
  backend.run = run;
  app("three");
  await runs(2);
});
