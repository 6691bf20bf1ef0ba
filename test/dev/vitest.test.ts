/** cloister/vitest, by tests that use it, and by one whose failures are looked at. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterAll, expect, onTestFinished, test } from "vitest";
import { enclaveTest } from "../../dev/vitest.ts";
import { makeProject } from "./app.ts";

const ROOT = join(import.meta.dirname, "../..");
const project = makeProject();
afterAll(() => project[Symbol.dispose]());
const own = enclaveTest({ directory: project.directory, mode: "bare" });

own("a test has an enclave that is ready", async ({ enclave }) => {
  expect(await (await enclave.fetch("/")).json()).toEqual({ hello: "world" });
});

own("the next one has the same, and no measurements of it, for it has no image", async ({ enclave }) => {
  const said = enclave.logs.filter(({ source }) => source === "stdout").map(({ text }) => text);
  expect(said).toEqual(["hello from the app"]);
  await expect(expect(enclave).toHaveMeasurements()).rejects.toThrow("got a bare enclave");
});

const measurements = { PCR0: "00".repeat(48), PCR1: "11".repeat(48), PCR2: "22".repeat(48) };

test("measurements are compared by the registers that are given", async () => {
  await expect({ measurements }).toHaveMeasurements({ PCR0: measurements.PCR0 });
  await expect({ measurements }).not.toHaveMeasurements({ PCR0: measurements.PCR1 });
  await expect(expect({ measurements }).toHaveMeasurements({ PCR1: "00" })).rejects.toThrow(
    "expected measurements",
  );
  await expect(expect({ measurements }).toHaveMeasurements({})).rejects.toThrow();
  await expect(expect(3).toHaveMeasurements()).rejects.toThrow("expected an EIF's path");
  await expect(expect("/nowhere.eif").toHaveMeasurements()).rejects.toMatchObject({ code: "E_EIF_READ" });
});

test("an image is measured", async () => {
  // AWS's eif_build of the same image, as in test/format/describe.test.ts.
  const PCR0 =
    "4138378623ae26f72fdec6f1cb46eb2d57ac0d411b71be5d6c463176fe712d51a7431eb2c6910a49c40035e9a7cdd555";
  await expect(join(ROOT, "test/vectors/eif/A.eif")).toHaveMeasurements({ PCR0 });
});

/** A project of its own, below the checkout so that it finds vitest. */
async function vitest(source: string, ...words: string[]) {
  const folder = makeProject({}, join(ROOT, "node_modules/.cache"));
  onTestFinished(() => folder[Symbol.dispose]());
  const { directory } = folder;
  writeFileSync(join(directory, "vitest.config.ts"), "export default {};");
  writeFileSync(join(directory, "probe.test.ts"), source);
  const run = async (...more: string[]) => {
    const main = join(ROOT, "node_modules/vitest/vitest.mjs");
    const args = [main, "run", "--root", directory, ...words, ...more];
    const child = spawn(process.execPath, args, { env: { ...process.env, NO_COLOR: "1", CI: "" } });
    const [output, errors] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      once(child, "close"),
    ]);
    return { status: child.exitCode, output: output + errors };
  };
  return { directory, run };
}

const HEAD = `
  import { readFileSync } from "node:fs";
  import { expect, test } from "vitest";
  import * as cloister from ${JSON.stringify(join(ROOT, "dev/vitest.ts"))};
  import ${JSON.stringify(join(ROOT, "dev/vitest.ts"))};
`;

test("without an expectation they are a snapshot, which a change fails", async () => {
  const source = `${HEAD}
    test("release", async () => {
      const measurements = JSON.parse(readFileSync(new URL("pcrs.json", import.meta.url), "utf8"));
      await expect({ measurements }).toHaveMeasurements();
    });`;
  const { directory, run } = await vitest(source);
  const write = (pcrs: object) => writeFileSync(join(directory, "pcrs.json"), JSON.stringify(pcrs));
  write(measurements);
  const first = await run();
  expect([first.status, first.output]).toEqual([0, expect.stringContaining("1 passed")]);
  const snapshot = readFileSync(join(directory, "__snapshots__/probe.test.ts.snap"), "utf8");
  expect(snapshot).toContain(`"PCR1": "${measurements.PCR1}"`);
  expect(await run()).toMatchObject({ status: 0 });
  write({ ...measurements, PCR2: "33".repeat(48) });
  const { status, output } = await run();
  expect(status).toBe(1);
  expect(output).toContain(`+   "PCR2": "${"33".repeat(48)}"`);
  expect(await run("-u")).toMatchObject({ status: 0 });
});

test("a test that fails shows what its enclave told", async () => {
  const source = `${HEAD}
    const own = cloister.enclaveTest({ directory: import.meta.dirname, mode: "bare" });
    own("fails", async ({ enclave }) => expect((await enclave.fetch("/throw")).status).toBe(200));`;
  const { status, output } = await (await vitest(source)).run();
  expect(status).toBe(1);
  expect(output).toContain("stdout: hello from the app");
  expect(output).toContain("stderr: Error: boom");
});
