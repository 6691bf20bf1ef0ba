import fc from "fast-check";
import { expect, test } from "vitest";
import { encodeFrame, FrameDecoder } from "../../format/frame.ts";
import { concat, toHex } from "../../format/struct.ts";
import { fromHex } from "./vectors.ts";

const MAX = 64;

/** All messages of a stream that arrives in these pieces. */
function decode(pieces: Iterable<Uint8Array>, max = MAX): Uint8Array[] {
  const decoder = new FrameDecoder(max);
  return [...pieces].flatMap((piece) => [...decoder.push(piece)]);
}

test.each([
  ["", "00000000"],
  ["f6", "00000001f6"],
  ["00".repeat(64), `00000040${"00".repeat(64)}`],
])("%s", (message, frame) => {
  expect(toHex(encodeFrame(fromHex(message)))).toBe(frame);
  expect(decode([fromHex(frame)]).map(toHex)).toEqual([message]);
});

test("messages come out as they went in, wherever the stream is cut", () => {
  let whole = 0;
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: MAX }), { maxLength: 5 }),
      fc.array(fc.nat(40), { maxLength: 30 }),
      (messages, cuts) => {
        const stream = concat(messages.map(encodeFrame));
        const pieces: Uint8Array[] = [];
        let rest = stream;
        for (const cut of cuts) {
          pieces.push(rest.subarray(0, cut));
          rest = rest.subarray(cut);
        }
        const decoded = decode([...pieces, rest]);
        expect(decoded.map(toHex)).toEqual(messages.map(toHex));
        whole += decoded.length;
      },
    ),
  );
  expect(whole).toBeGreaterThan(50);
});

test.each(["00000041", "ffffffff", "80000000"])(
  "a length of 0x%s is refused before a byte of it came",
  (length) => {
    expect(() => decode([fromHex(length)])).toThrow(
      expect.objectContaining({ code: "E_NSM", expected: "at most 64" }),
    );
  },
);

test("what is cut off is no message", () => {
  const frame = encodeFrame(Uint8Array.of(1, 2, 3));
  for (let length = 0; length < frame.length; length++)
    expect(decode([frame.subarray(0, length)])).toEqual([]);
});
