/** The console ring: what is kept, and readers at their own pace. */
import { once } from "node:events";
import { text } from "node:stream/consumers";
import fc from "fast-check";
import { expect, test } from "vitest";
import { CONSOLE_BYTES, Console } from "../../emulator/console.ts";

test("keeps the last bytes, however they were written", () => {
  const text = Buffer.alloc(3 * CONSOLE_BYTES).map((_, index) => 0x21 + (index % 89));
  fc.assert(
    fc.property(fc.array(fc.nat(text.length), { maxLength: 6 }), (lengths) => {
      const console = new Console();
      const chunks = lengths.map((length) => text.subarray(0, length));
      for (const chunk of chunks) console.write(chunk);
      const expected = Buffer.concat(chunks).subarray(-CONSOLE_BYTES);
      expect(Buffer.from(console.tail()).equals(expected)).toBe(true);
    }),
  );
});

test("a reader gets what was there, what comes, and the end", async () => {
  const console = new Console();
  console.write(Buffer.from("before "));
  const [first, second] = [text(console.connect(10_016)), text(console.connect(10_016))];
  await new Promise(setImmediate);
  console.write(Buffer.from("after"));
  console.end();
  expect(await first).toBe("before after");
  expect(await second).toBe("before after");
  expect(await text(console.connect(10_016))).toBe("before after");
});

test("a reader that stalls loses what the ring lost, and holds no more memory than the ring", async () => {
  const console = new Console();
  const reader = console.connect(10_016);
  console.write(Buffer.from("first"));
  expect(String(reader.read())).toBe("first");
  for (let n = 0; n < 100; n++) console.write(Buffer.alloc(CONSOLE_BYTES, (n % 10) + 0x30));
  console.end();
  const rest = await text(reader);
  expect(rest.length).toBeLessThanOrEqual(2 * CONSOLE_BYTES);
  expect(rest.endsWith("9".repeat(CONSOLE_BYTES))).toBe(true);
});

test("a reader that leaves is forgotten, and writing to the console does nothing", async () => {
  const console = new Console();
  const reader = console.connect(10_016);
  reader.write("ignored");
  reader.destroy();
  await once(reader, "close");
  console.write(Buffer.from("more"));
  expect(console.tail()).toBe("more");
});
