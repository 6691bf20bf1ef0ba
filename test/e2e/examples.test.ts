/** The examples as their READMEs tell: each built, booted, and asked by its own client, which verifies it first. */
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { build as bundle } from "esbuild";
import { afterAll, expect, test } from "vitest";
import { build } from "../../packer/index.ts";
import { CACHE, ROOT, start } from "./enclave.ts";

const run = promisify(execFile);
const folder = mkdtempSync(join(tmpdir(), "cloister-examples-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Example extends AsyncDisposable {
  readonly url: string;
  /** What the client printed. Rejects where its status is not 0. */
  client(...words: string[]): Promise<string>;
  readonly root: string;
}

async function begin(name: string): Promise<Example> {
  const place = join(folder, name);
  mkdirSync(place);
  const directory = join(ROOT, "examples", name);
  const built = await build({ directory, output: join(place, "app.eif"), cacheDirectory: CACHE });
  const release = join(place, "release.json");
  const { PCR0, PCR1, PCR2 } = built.measurements;
  writeFileSync(release, JSON.stringify({ Measurements: { PCR0, PCR1, PCR2 } }));
  const client = join(place, "client.mjs");
  await bundle({
    entryPoints: [join(directory, "client.ts")],
    outfile: client,
    ...{ bundle: true, format: "esm", platform: "node", target: "esnext", logLevel: "warning" },
  });
  const running = await start(built.eifPath, { emulator: { nsm: { root: join(place, "root") } } });
  try {
    await running.enclave.ready;
    const root = join(place, "root.pem");
    const der = Buffer.from(await running.attestationRoot()).toString("base64");
    writeFileSync(root, `-----BEGIN CERTIFICATE-----\n${der}\n-----END CERTIFICATE-----\n`);
    return {
      url: running.url,
      root,
      client: async (...words) =>
        (await run(process.execPath, [client, running.url, release, ...words], { timeout: 60_000 })).stdout,
      [Symbol.asyncDispose]: () => running[Symbol.asyncDispose](),
    };
  } catch (error) {
    await running[Symbol.asyncDispose]();
    throw error;
  }
}

test("ethereum-signer signs within its budget, for those who verified it", async () => {
  await using signer = await begin("ethereum-signer");
  const recipient = "0xd8da6bf26964af9d7eed9e03e53415d37aa96045";
  const printed = await signer.client(recipient, "1000", signer.root);
  expect(printed).toMatch(/^the signer is 0x[0-9a-fA-F]{40}\nsigned: 0x02[0-9a-f]+\n\d+ wei left\n$/);
  const stranger = "0x0000000000000000000000000000000000000001";
  await expect(signer.client(stranger, "1000", signer.root)).rejects.toThrow("measured recipients");
  expect((await fetch(`${signer.url}/address`)).status).toBe(403);
  // Without the development root it is AWS's that counts.
  await expect(signer.client(recipient, "1000")).rejects.toThrow("E_");
});

test("vote-tally tells totals when all have voted, signed by the hypervisor", async () => {
  await using poll = await begin("vote-tally");
  expect(await poll.client("vote", "alice-token", "yes", poll.root)).toContain('"missing":2');
  await expect(poll.client("vote", "alice-token", "no", poll.root)).rejects.toThrow();
  await expect(poll.client("result", poll.root)).rejects.toThrow("2 ballots are missing");
  await poll.client("vote", "bob-token", "yes", poll.root);
  await poll.client("vote", "carol-token", "no", poll.root);
  const result = { counts: { yes: 2, no: 1 }, voters: 3 };
  expect(await poll.client("result", poll.root)).toBe(`verified: ${JSON.stringify(result)}\n`);
});

test("set-intersection tells two parties what they have in common", async () => {
  await using sets = await begin("set-intersection");
  const [ours, theirs] = [join(folder, "ours.txt"), join(folder, "theirs.txt")];
  writeFileSync(ours, "ann\nbob\ncid\n");
  writeFileSync(theirs, "dan\ncid\nbob\n");
  const printed = await Promise.all([
    sets.client("demo", ours, sets.root),
    sets.client("demo", theirs, sets.root),
  ]);
  expect(printed).toEqual(["bob\ncid\n", "bob\ncid\n"]);
});

test("jwt-issuer proves where its keys live, and issues tokens that they verify", async () => {
  await using issuer = await begin("jwt-issuer");
  expect(await issuer.client("billing", "billing-secret", issuer.root)).toMatch(
    /^verified: these keys are the enclave's own\na token for billing, good until 20\d\d-/,
  );
  await expect(issuer.client("billing", "wrong", issuer.root)).rejects.toThrow("a known client");
});
