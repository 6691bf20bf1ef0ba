/** The verifier as a page gets it: bundled for browsers, run where there is nothing of Node. */
import vm from "node:vm";
import { build } from "esbuild";
import { beforeAll, expect, test } from "vitest";
import type * as Verifier from "../../format/verify.ts";
import { createChain, optionsFor, signed } from "./authority.ts";

/** Minified, bytes: with all it needs. docs/attestation.md says the same. */
const CEILING = 30_000;

let code: string;

beforeAll(async () => {
  const { outputFiles } = await build({
    entryPoints: ["format/verify.ts"],
    bundle: true,
    minify: true,
    write: false,
    platform: "browser",
    format: "iife",
    globalName: "verifier",
  });
  code = outputFiles[0]?.text ?? "";
});

test("is small", () => {
  expect(code.length).toBeGreaterThan(10_000);
  expect(code.length).toBeLessThanOrEqual(CEILING);
});

test("brings no package and none of the command line's texts", () => {
  expect(code).not.toMatch(/node:|@noble|CLOISTER_DEBUG|nitro_enclaves/);
});

test("verifies with WebCrypto and text codecs alone, bytes of another realm", async () => {
  const context = vm.createContext({ crypto, TextEncoder, TextDecoder });
  vm.runInContext(code, context);
  const { verifyAttestation } = vm.runInContext("verifier", context) as typeof Verifier;
  const chain = await createChain();
  const bytes = await signed(chain);
  const { steps } = await verifyAttestation(bytes, optionsFor(chain));
  expect(steps.length).toBe(12);
  bytes[100] = (bytes[100] ?? 0) ^ 1;
  await expect(verifyAttestation(bytes, optionsFor(chain))).rejects.toMatchObject({
    name: "AttestationError",
  });
});
