import fc from "fast-check";
import { expect, test } from "vitest";
import { SectionType } from "../../format/eif.ts";
import { decodeMetadata, type EifMetadata, encodeMetadata } from "../../format/metadata.ts";
import { decodeEif } from "../../format/reader.ts";
import { refusal, utf8, vector } from "./vectors.ts";

const metadata: EifMetadata = {
  ImageName: "hello",
  ImageVersion: "1.0",
  BuildMetadata: {
    BuildTime: "2024-01-02T03:04:05+00:00",
    BuildTool: "nitro-cli",
    BuildToolVersion: "1.5.0",
    OperatingSystem: "Linux",
    KernelVersion: "4.14.256",
  },
  DockerInfo: null,
  CustomMetadata: null,
};
const awsBytes =
  decodeEif(vector("eif/A.eif")).sections.find(({ type }) => type === SectionType.Metadata)?.data ??
  new Uint8Array(0);

test("writes AWS's bytes, in whatever order the keys are given", () => {
  expect(encodeMetadata(metadata)).toEqual(awsBytes);
  const reversed = Object.fromEntries(Object.entries(metadata).reverse()) as unknown as EifMetadata;
  expect(encodeMetadata(reversed)).toEqual(awsBytes);
});

test("reads AWS's bytes", () => {
  expect(decodeMetadata(awsBytes)).toEqual(metadata);
});

test("reads back any JSON", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme" }), fc.jsonValue(), fc.jsonValue(), (name, docker, custom) => {
      const written = encodeMetadata({
        ...metadata,
        ImageName: name,
        DockerInfo: JSON.parse(JSON.stringify(docker)),
        CustomMetadata: JSON.parse(JSON.stringify(custom)),
      });
      expect(JSON.stringify(decodeMetadata(written).DockerInfo)).toBe(JSON.stringify(docker));
      expect(JSON.stringify(decodeMetadata(written).CustomMetadata)).toBe(JSON.stringify(custom));
    }),
  );
});

const without = (key: string) => utf8(JSON.stringify({ ...metadata, [key]: undefined }));

test.each([
  ["DockerInfo", "a value"],
  ["CustomMetadata", "a value"],
  ["ImageName", "a string"],
  ["ImageVersion", "a string"],
  ["BuildMetadata", "an object"],
])("wants the key %s, null or not", (key, expected) => {
  expect(refusal(() => decodeMetadata(without(key)))).toBe(
    `E_EIF_METADATA: metadata section: ${key}: got nothing, expected ${expected}`,
  );
});

test.each([
  ["hello", /^E_EIF_METADATA: metadata section: got "hello" \(.*\), expected JSON$/],
  ["[]", /^E_EIF_METADATA: metadata section: got an array of 0, expected an object$/],
  ["", /^E_EIF_METADATA: metadata section: got "" \(.*\), expected JSON$/],
  ['{"ImageName":7}', /^E_EIF_METADATA: metadata section: ImageName: got 7, expected a string$/],
])("refuses %j", (text, message) => {
  expect(refusal(() => decodeMetadata(utf8(text)))).toMatch(message);
});

test("refuses bytes that are not UTF-8, and names nested keys", () => {
  expect(refusal(() => decodeMetadata(Uint8Array.of(0x7b, 0xff, 0x7d)))).toBe(
    "E_EIF_METADATA: metadata section: got bytes that are not UTF-8, expected JSON in UTF-8",
  );
  const wrong = { ...metadata, BuildMetadata: { ...metadata.BuildMetadata, BuildTool: 7 } };
  expect(refusal(() => decodeMetadata(utf8(JSON.stringify(wrong))))).toBe(
    "E_EIF_METADATA: metadata section: BuildMetadata.BuildTool: got 7, expected a string",
  );
});

test("takes keys it does not know, as AWS's reader does", () => {
  expect(decodeMetadata(utf8(JSON.stringify({ ...metadata, Zzz: 1 })))).toEqual(metadata);
});
