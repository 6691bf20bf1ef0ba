/** What the language and its engine have: modules, Intl, time, WebAssembly, inspection. */
import assert from "node:assert/strict";
import { AsyncLocalStorage, AsyncResource } from "node:async_hooks";
import diagnostics from "node:diagnostics_channel";
import { once } from "node:events";
import inspector from "node:inspector/promises";
import { createRequire } from "node:module";
import { monitorEventLoopDelay, PerformanceObserver, performance } from "node:perf_hooks";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { domainToASCII, fileURLToPath, URLPattern } from "node:url";
import { inspect, parseArgs, styleText } from "node:util";
import v8 from "node:v8";
import vm from "node:vm";
import type { Checks } from "./check.ts";
import data from "./data.json" with { type: "json" };

const awaited = await Promise.resolve("at the top level");

/** TypeScript's library of this edition has no Temporal yet. */
declare const Temporal: {
  readonly Instant: {
    fromEpochMilliseconds(ms: number): { toZonedDateTimeISO(zone: string): { readonly hour: number } };
  };
};

/** (module (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add)) */
const ADD = Buffer.from(
  "0061736d0100000001070160027f7f017f030201000707010361646400000a09010700200020016a0b",
  "hex",
);

export const language: Checks = {
  "modules: top-level await, import() and JSON": async () => {
    assert.equal(awaited, "at the top level");
    assert.equal((await import("./late.ts")).loaded, "late");
    assert.equal(data.answer, 42);
  },
  "modules: require and import.meta": () => {
    const require = createRequire(import.meta.url);
    assert.equal(require("node:path"), process.getBuiltinModule("node:path"));
    assert.ok(fileURLToPath(import.meta.url).startsWith("/app/"));
    assert.equal(import.meta.dirname, "/app");
  },
  "modules: stack traces name the app's own files": () => {
    assert.match(new Error().stack ?? "", /language\.ts:\d+:\d+/);
  },
  "Intl: all languages": () => {
    assert.equal(new Intl.NumberFormat("de").format(1234.5), "1.234,5");
    assert.equal(new Intl.NumberFormat("ar-EG").format(12), "١٢");
    const date = new Intl.DateTimeFormat("ja-JP", { dateStyle: "full", timeZone: "UTC" });
    assert.equal(date.format(0), "1970年1月1日木曜日");
    assert.deepEqual(["z", "ä", "a"].sort(new Intl.Collator("sv").compare), ["a", "z", "ä"]);
    assert.equal(new Intl.PluralRules("cy").select(3), "few");
    assert.equal(new Intl.DisplayNames("fr", { type: "region" }).of("DE"), "Allemagne");
    assert.deepEqual(
      [...new Intl.Segmenter("th", { granularity: "word" }).segment("สวัสดีชาวโลก")].map(
        ({ segment }) => segment,
      ),
      ["สวัสดี", "ชาว", "โลก"],
    );
    assert.equal("I".toLocaleLowerCase("tr"), "ı");
    assert.equal("ﬁ".normalize("NFKC"), "fi");
  },
  "time zones: TZ, Intl and Temporal": () => {
    const before = process.env.TZ;
    const noon = new Date(Date.UTC(2026, 6, 1, 12));
    try {
      process.env.TZ = "Asia/Tokyo";
      assert.equal(noon.getHours(), 21);
      process.env.TZ = "America/New_York";
      assert.equal(noon.getHours(), 8);
    } finally {
      if (before === undefined) delete process.env.TZ;
      else process.env.TZ = before;
    }
    assert.equal(noon.getHours(), 12);
    const berlin = new Intl.DateTimeFormat("en", { timeZone: "Europe/Berlin", timeStyle: "long" });
    assert.match(berlin.format(noon), /^2:00:00\sPM GMT\+2$/);
    assert.ok(Intl.supportedValuesOf("timeZone").length > 400);
    const zoned = Temporal.Instant.fromEpochMilliseconds(noon.getTime()).toZonedDateTimeISO("Asia/Kolkata");
    assert.equal(zoned.hour, 17);
  },
  "time: timers and clocks": async () => {
    const [start, clock] = [performance.now(), Date.now()];
    assert.equal(await sleep(20, "later"), "later");
    assert.ok(performance.now() - start >= 19);
    assert.ok(clock > Date.UTC(2026, 0, 1));
    await assert.rejects(sleep(60_000, undefined, { signal: AbortSignal.timeout(10) }), {
      name: "AbortError",
    });
  },
  "WebAssembly: compiles and runs": async () => {
    const { instance } = await WebAssembly.instantiate(ADD);
    const { add } = instance.exports as { add(a: number, b: number): number };
    assert.equal(add(40, 2), 42);
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 4, shared: true });
    assert.equal(memory.grow(3), 1);
  },
  "async_hooks: AsyncLocalStorage": async () => {
    const storage = new AsyncLocalStorage<number>();
    const seen = await Promise.all(
      [1, 2, 3].map((n) =>
        storage.run(n, async () => {
          await sleep(5);
          return storage.getStore();
        }),
      ),
    );
    assert.deepEqual(seen, [1, 2, 3]);
    const resource = storage.run(9, () => new AsyncResource("bound"));
    assert.equal(
      resource.runInAsyncScope(() => storage.getStore()),
      9,
    );
  },
  "perf_hooks: observers and event-loop delay": async () => {
    const histogram = monitorEventLoopDelay({ resolution: 1 });
    histogram.enable();
    const { promise, resolve } = Promise.withResolvers<string>();
    const observer = new PerformanceObserver((list) => resolve(list.getEntries()[0]?.name ?? ""));
    observer.observe({ entryTypes: ["measure"] });
    performance.mark("a");
    performance.measure("from a", "a");
    assert.equal(await promise, "from a");
    observer.disconnect();
    while (histogram.count === 0) await sleep(5);
    assert.ok(histogram.max > 0);
    histogram.disable();
    assert.ok(performance.eventLoopUtilization().utilization <= 1);
  },
  "diagnostics_channel: published messages arrive": () => {
    const heard: unknown[] = [];
    const listen = (message: unknown) => heard.push(message);
    diagnostics.subscribe("a channel", listen);
    diagnostics.channel("a channel").publish("a message");
    diagnostics.unsubscribe("a channel", listen);
    assert.deepEqual(heard, ["a message"]);
  },
  "inspector: a session in the process, and a port": async () => {
    const session = new inspector.Session();
    session.connect();
    const { result } = await session.post("Runtime.evaluate", { expression: "6 * 7" });
    assert.equal(result.value, 42);
    session.disconnect();
    inspector.open(0, "127.0.0.1");
    const url = new URL(inspector.url() ?? "");
    const answer = await fetch(`http://${url.host}/json/version`);
    assert.match(((await answer.json()) as { Browser: string }).Browser, /^node\.js/);
    inspector.close();
  },
  "v8 and vm: heap statistics, structured clones, contexts": () => {
    const { heap_size_limit: limit, used_heap_size: used } = v8.getHeapStatistics();
    assert.ok(used > 0 && limit > used);
    const value = { map: new Map([[1, new Set(["a"])]]), date: new Date(0) };
    assert.deepEqual(v8.deserialize(v8.serialize(value)), value);
    assert.deepEqual(structuredClone(value), value);
    assert.equal(vm.runInNewContext("a + 1", { a: 41 }), 42);
  },
  "readline: lines of a stream": async () => {
    const lines: string[] = [];
    for await (const line of createInterface({ input: Readable.from(["one\ntw", "o\n"]) })) lines.push(line);
    assert.deepEqual(lines, ["one", "two"]);
  },
  "stream/web: transforms and text": async () => {
    const upper = new TransformStream<string, string>({
      transform: (chunk, controller) => controller.enqueue(chunk.toUpperCase()),
    });
    const source = new Blob(["grüße"]).stream().pipeThrough(new TextDecoderStream()).pipeThrough(upper);
    let all = "";
    for await (const chunk of source) all += chunk;
    assert.equal(all, "GRÜSSE");
    const packed = new Blob(["x".repeat(1000)]).stream().pipeThrough(new CompressionStream("gzip"));
    const unpacked = packed.pipeThrough(new DecompressionStream("gzip"));
    assert.equal((await new Response(unpacked).text()).length, 1000);
  },
  "url and util: what libraries take for granted": () => {
    assert.equal(new URL("http://bücher.example/ä?b=1").href, "http://xn--bcher-kva.example/%C3%A4?b=1");
    assert.equal(domainToASCII("español.com"), "xn--espaol-zwa.com");
    assert.equal(new URLPattern({ pathname: "/:id" }).exec("http://a/7")?.pathname.groups.id, "7");
    assert.equal(parseArgs({ args: ["--n", "7"], options: { n: { type: "string" } } }).values.n, "7");
    assert.equal(inspect({ a: [1] }), "{ a: [ 1 ] }");
    assert.equal(styleText("red", "x", { validateStream: false }), "\u001b[31mx\u001b[39m");
  },
  "events: EventTarget, AbortSignal, once": async () => {
    const target = new EventTarget();
    const heard = once(target, "ping");
    target.dispatchEvent(new Event("ping"));
    await heard;
    assert.equal(AbortSignal.any([AbortSignal.abort("why")]).reason, "why");
  },
};
