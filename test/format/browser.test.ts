import { createContext, Script } from "node:vm";
import { build } from "esbuild";
import { expect, test } from "vitest";
import { vector } from "./vectors.ts";

/** What every browser has and the bundle may use. */
const { TextEncoder, TextDecoder, crypto, atob } = globalThis;

test("describes a signed image with nothing but what a browser has", async () => {
  const bundle = await build({
    stdin: {
      contents:
        'export { describeEif } from "./describe.ts"; export { bytesReader } from "./reader.ts";' +
        'export * from "./cpio.ts"; export * from "./archive.ts"; export * from "./nsm.ts"; export * from "./enclave.ts";' +
        'export * from "./control.ts"; export * from "./kernel.ts"; export * from "./metadata.ts";',
      resolveDir: new URL("../../format", import.meta.url).pathname,
    },
    ...{
      bundle: true,
      write: false,
      format: "iife",
      globalName: "format",
      platform: "browser",
      logLevel: "silent",
    },
  });
  const context = createContext({ TextEncoder, TextDecoder, crypto, atob, Uint8Array, Promise, Map });
  new Script(`${bundle.outputFiles[0]?.text}; globalThis.format = format`).runInContext(context);
  const { describeEif, bytesReader } = context.format;
  const description = await describeEif(bytesReader(vector("eif/S-secp384r1.eif")));
  expect(description).toMatchObject({ IsSigned: true, CheckCRC: true, SignatureCheck: true });
  expect(description.Measurements.PCR0).toMatch(/^4138378623ae26f7/);
});
