/**
 * The example page in Chromium, against an enclave in the emulator through a published port: verified with every step
 * shown, refused with the step that failed, and a request that only the enclave can read.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createClient } from "../../client/index.ts";
import { servePage } from "../../examples/verify-page/serve.ts";
import { fingerprint, type PcrSet, readPolicy } from "../../format/verify.ts";
import { type BuildResult, build } from "../../packer/index.ts";
import { type Browser, chromiumMissing, openBrowser } from "./chromium.ts";
import { ROOT, type Running, start } from "./enclave.ts";

const folder = mkdtempSync(join(tmpdir(), "cloister-page-"));
let built: BuildResult;
let running: Running;
let roots: readonly string[];
let browser: Browser;

beforeAll(async () => {
  built = await build({
    directory: join(ROOT, "examples/verify-page"),
    output: join(folder, "page.eif"),
    cacheDirectory: join(ROOT, "node_modules/.cache/cloister"),
  });
  running = await start(built.eifPath, { emulator: { nsm: { root: join(folder, "root") } } });
  await running.enclave.ready;
  roots = [await fingerprint(await running.attestationRoot())];
  if (chromiumMissing === undefined) browser = await openBrowser();
});

afterAll(async () => {
  await browser?.[Symbol.asyncDispose]();
  await running?.[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

const registers = (): PcrSet => {
  const { PCR0, PCR1, PCR2 } = built.measurements;
  return { PCR0, PCR1, PCR2 };
};

test("the same from Node: attested, then a request that says it came encrypted", async () => {
  const client = createClient(running.url, {
    policy: readPolicy(registers()),
    roots,
    attestDeadline: 60_000,
  });
  const response = await client.fetch("/", { method: "POST", body: "1234" });
  expect(await response.json()).toEqual({ encrypted: true, length: 4 });
  const plain = await fetch(running.url, { method: "POST", body: "1234" });
  expect(await plain.json()).toEqual({ encrypted: false, length: 4 });
});

describe.skipIf(chromiumMissing !== undefined)(
  `in Chromium${chromiumMissing ? `: ${chromiumMissing}` : ""}`,
  () => {
    async function open(accept: { readonly policy: unknown; readonly roots?: readonly string[] }) {
      const served = await servePage({ enclave: running.url, ...accept });
      const page = await browser.context.newPage();
      await page.goto(served.url);
      await page.locator("#verdict[data-verdict]").waitFor({ timeout: 60_000 });
      return {
        page,
        async [Symbol.asyncDispose]() {
          await page.close();
          await served[Symbol.asyncDispose]();
        },
      };
    }

    const verdict = (page: Page) => page.locator("#verdict").getAttribute("data-verdict");
    const statuses = (page: Page) =>
      page.locator("#steps li").evaluateAll((items) => items.map(({ className }) => className));

    test("the page verifies the enclave and shows every step", async () => {
      await using opened = await open({ policy: registers(), roots });
      const { page } = opened;
      expect(await verdict(page)).toBe("verified");
      expect(await statuses(page)).toEqual([...Array.from({ length: 11 }, () => "passed"), "skipped"]);
      expect(await page.locator("[data-step=registers]").textContent()).toContain(built.measurements.PCR0);
    });

    test("what is sent then is read by the enclave and by nobody else", async () => {
      await using opened = await open({ policy: registers(), roots });
      const { page } = opened;
      const sent: string[] = [];
      page.on("request", (request) =>
        sent.push(`${request.method()} ${request.url()} ${request.postData()}`),
      );
      await page.locator("#secret").fill("correct horse");
      await page.locator("button").click();
      await page.locator("#answer:not(:empty)").waitFor();
      expect(JSON.parse((await page.locator("#answer").textContent()) ?? "")).toEqual({
        encrypted: true,
        length: 13,
      });
      expect(sent.join("\n")).toContain("/.well-known/cloister/ohttp");
      expect(sent.join("\n")).not.toContain("correct horse");
    });

    test.each<[string, () => { policy: unknown; roots?: readonly string[] }, string, string]>([
      [
        "another release",
        () => ({ policy: { ...registers(), PCR2: "ab".repeat(48) }, roots }),
        "registers",
        "E_ATTESTATION_PCRS",
      ],
      ["AWS's root alone", () => ({ policy: registers() }), "root", "E_ATTESTATION_ROOT"],
    ])("the page refuses it where it accepts %s", async (_, accept, step, code) => {
      await using opened = await open(accept());
      const { page } = opened;
      expect(await verdict(page)).toBe("refused");
      expect(await page.locator("#verdict").textContent()).toContain(code);
      expect(await page.locator("#steps li.failed").getAttribute("data-step")).toBe(step);
      expect(await page.locator("#form").isVisible()).toBe(false);
    });
  },
);
