/**
 * `cloister/vitest`: a test that has an enclave, and the measurements of a release as a snapshot. docs/testing.md is its
 * guide. Vitest is the project's own.
 */
import { expect, test } from "vitest";
import { describeOpenFile, openEif } from "../launcher/measure.ts";
import { createEnclave, type EnclaveOptions } from "./enclave.ts";
import { TestEnclave, type TestMeasurements } from "./test/subject.ts";

const REGISTERS = ["PCR0", "PCR1", "PCR2"] as const;

/** An image as a path, what `build` of cloister/packer returns, or an enclave that runs in a VM. */
export type Measured = string | TestEnclave | { readonly measurements: TestMeasurements };

/**
 * Vitest's `test` with an enclave of this file: `const test = enclaveTest({ … })`, `test("…", async ({ enclave }) => …)`. It
 * starts with the first test, is ready, and ends with the last; a test that fails shows what it told.
 */
export function enclaveTest(options: EnclaveOptions = {}) {
  return test
    .extend<{ enclave: TestEnclave }>({
      enclave: [
        // Vitest reads from the pattern which fixtures this one needs: none.
        // biome-ignore lint/correctness/noEmptyPattern: see above
        async ({}, use) => {
          await using enclave = await createEnclave(options);
          await enclave.ready;
          await use(enclave);
        },
        { scope: "file" },
      ],
    })
    .extend<{ story: undefined }>({
      story: [
        async ({ enclave, onTestFailed }, use) => {
          onTestFailed(() => console.error(enclave.story()));
          await use(undefined);
        },
        { auto: true },
      ],
    });
}

/** PCR0 to PCR2. Throws TypeError for what has none, E_EIF_* for a file that is no image. */
export async function measurementsOf(measured: unknown): Promise<TestMeasurements> {
  if (measured instanceof TestEnclave && measured.mode === "bare") {
    throw new TypeError("toHaveMeasurements: got a bare enclave, which has no image; expected one in a VM");
  }
  if (typeof measured === "string") return await measureFile(measured);
  const { measurements } = Object(measured) as { readonly measurements?: Partial<TestMeasurements> };
  const [PCR0, PCR1, PCR2] = REGISTERS.map((name) => measurements?.[name]);
  if (PCR0 !== undefined && PCR1 !== undefined && PCR2 !== undefined) return { PCR0, PCR1, PCR2 };
  throw new TypeError(
    `toHaveMeasurements: got ${typeof measured}, expected an EIF's path, a build's result or an enclave`,
  );
}

async function measureFile(path: string): Promise<TestMeasurements> {
  const file = await openEif(path);
  try {
    const { Measurements: measurements } = await describeOpenFile(file, path);
    return await measurementsOf({ measurements });
  } finally {
    await file.close();
  }
}

expect.extend({
  async toHaveMeasurements(measured: unknown, expected?: Partial<TestMeasurements>) {
    const actual = await measurementsOf(measured);
    if (expected === undefined) {
      expect(actual).toMatchSnapshot("measurements");
      return { pass: true, message: () => "expected other measurements than the snapshot's" };
    }
    const names = REGISTERS.filter((name) => expected[name] !== undefined);
    const pick = (of: Partial<TestMeasurements>) => Object.fromEntries(names.map((name) => [name, of[name]]));
    return {
      pass: names.length > 0 && this.equals(pick(actual), pick(expected)),
      message: () => `expected ${this.isNot ? "other " : ""}measurements`,
      actual: pick(actual),
      expected: pick(expected),
    };
  },
});

declare module "vitest" {
  interface Matchers<R extends void | Promise<void>, T> {
    /**
     * PCR0 to PCR2 are those of `expected`; without it, those of the file's snapshot, which `vitest -u` writes anew.
     * To be awaited.
     */
    toHaveMeasurements(expected?: Partial<TestMeasurements>): Promise<T>;
  }
}
