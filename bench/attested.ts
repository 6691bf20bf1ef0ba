/**
 * What attesting adds, against enclaves in the emulator: a cold page until it shows "verified", and first and next
 * requests of each client: `node bench/attested.ts [--runs N]`. A table on stderr, one JSON value on stdout.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { createClient } from "../client/index.ts";
import { attestedFetch, createTlsClient } from "../client/node/index.ts";
import { createEmulatedDevice } from "../emulator/index.ts";
import { servePage } from "../examples/verify-page/serve.ts";
import { fingerprint, type Policy, policyFromBuild } from "../format/verify.ts";
import { launch } from "../launcher/index.ts";
import { chromiumMissing, openBrowser } from "../test/e2e/chromium.ts";
import { median, table, withImage } from "./image.ts";

interface Target {
  readonly url: string;
  readonly policy: Policy;
  readonly roots: readonly string[];
}

/** The hello example, running; `use` gets its published port. */
async function withEnclave<T>(tls: boolean, use: (target: Target) => Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), "cloister-bench-"));
  try {
    return await withImage({ tls, memory: "256M" }, async ({ eifPath, measurements }) => {
      using device = createEmulatedDevice({ nsm: { root: join(directory, "root") } });
      const publish = [{ port: 0, vsockPort: 8080 }];
      await using enclave = await launch(eifPath, { device, publish });
      await enclave.ready;
      const url = `${tls ? "https" : "http"}://127.0.0.1:${enclave.published[0]?.port}`;
      const roots = [await fingerprint(await device.attestationRoot())];
      return await use({ url, policy: policyFromBuild({ Measurements: measurements }), roots });
    });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function milliseconds(work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await work();
  return performance.now() - begin;
}

/** Medians of `runs`: what `first` begins with, and what follows on the same client. */
async function measure(runs: number, fresh: () => (path: string) => Promise<Response>) {
  const [first, next]: [number[], number[]] = [[], []];
  for (let run = 0; run < runs; run++) {
    const ask = fresh();
    first.push(await milliseconds(async () => (await ask("/")).text()));
    for (let i = 0; i < 5; i++) next.push(await milliseconds(async () => (await ask("/")).text()));
    // The endpoint makes so many documents a second, on average.
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return { firstMs: Number(median(first).toFixed(1)), nextMs: Number(median(next).toFixed(1)) };
}

/** From navigation to the verdict on the page; a browser profile of its own each time. */
async function page(target: Target, runs: number) {
  const { url, policy, roots } = target;
  await using served = await servePage({ enclave: url, policy, roots });
  const times: number[] = [];
  for (let run = 0; run < runs; run++) {
    await using browser = await openBrowser();
    const opened = await browser.context.newPage();
    await opened.goto(served.url);
    const verdict = opened.locator("#verdict[data-verdict=verified]");
    await verdict.waitFor({ timeout: 60_000 });
    times.push(Number(await verdict.getAttribute("data-ms")));
  }
  return { coldPageMs: median(times), scriptBytes: served.sizeBytes };
}

const { values } = parseArgs({ options: { runs: { type: "string", default: "9" } } });
const runs = Number(values.runs);
const plain = await withEnclave(false, async (target) => {
  const { url, ...options } = target;
  return {
    plain: await measure(runs, () => (path) => fetch(new URL(path, url))),
    encrypted: await measure(runs, () => createClient(url, options).fetch),
    page: chromiumMissing === undefined ? await page(target, Math.min(runs, 5)) : chromiumMissing,
  };
});
const tls = await withEnclave(true, async ({ url, ...options }) => {
  const clients: Disposable[] = [];
  const results = {
    kept: await measure(runs, () => {
      const client = createTlsClient(url, options);
      clients.push(client);
      return client.fetch;
    }),
    single: await measure(runs, () => (path) => attestedFetch(new URL(path, url), options)),
  };
  for (const client of clients) client[Symbol.dispose]();
  return results;
});
console.error(
  table([
    { client: "fetch, not attested", ...plain.plain },
    { client: "createClient (HPKE)", ...plain.encrypted },
    { client: "createTlsClient", ...tls.kept },
    { client: "attestedFetch", ...tls.single },
  ]),
);
console.error(`page: ${JSON.stringify(plain.page)}`);
console.log(JSON.stringify({ attested: { runs, ...plain, tls } }));
