/** cloister/verify: documents per second, of which the curve alone takes, and the bundle's size. JSON on stdout. */
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { policyFromBuild, type VerifyOptions, verifyAttestation } from "../format/verify.ts";

const SECONDS = 3;

/** Of tkhq/qos, 2022-07-06: four certificates and a signature to verify, as in any document of hardware. */
const document = readFileSync(new URL("../test/vectors/attestation/qos-genesis.bin", import.meta.url));
const options: VerifyOptions = {
  policy: policyFromBuild({
    Measurements: {
      PCR0: "f8bb0133c427bc49aa39f6811a01077ce9ab7e635fa1f5439c9c8bf99754f8230e41b09426b0e595eebdc4d6ed4bc3b6",
      PCR1: "bcdf05fefccaa8e55bf2c8d6dee9e79bbff31e34bf28a99aa19e6b29c37ee80b214a414b7607236edf26fcb78654e63f",
      PCR2: "c185515d78cb90a2dc1fa49ea232fb44645acd18652c96dd05a92b9c5dbfa36d61d7c7d9e71d51de38de914cd00214bb",
    },
  }),
  dangerouslySkipNonce: true,
  now: 1657117102484,
};

interface Rate {
  readonly perSecond: number;
  /** Of one call, by the process's own clock: other load on the machine does not count. Milliseconds. */
  readonly cpuMs: number;
}

/** `parallel` calls are under way at any time. */
async function measure(call: () => Promise<unknown>, parallel: number): Promise<Rate> {
  for (let i = 0; i < 50; i++) await call();
  const cpu = process.cpuUsage();
  const begin = performance.now();
  let calls = 0;
  const work = async () => {
    for (; performance.now() - begin < SECONDS * 1000; calls++) await call();
  };
  await Promise.all(Array.from({ length: parallel }, work));
  const seconds = (performance.now() - begin) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  return { perSecond: Math.round(calls / seconds), cpuMs: (user + system) / 1000 / calls };
}

/** One P-384 verification as WebCrypto does it; a document takes five. */
async function curve(): Promise<() => Promise<unknown>> {
  const named = { name: "ECDSA", namedCurve: "P-384", hash: "SHA-384" };
  const { subtle } = globalThis.crypto;
  const { publicKey, privateKey } = await subtle.generateKey(named, false, ["sign", "verify"]);
  const data = new Uint8Array(600);
  const signature = await subtle.sign(named, privateKey, data);
  return () => subtle.verify(named, publicKey, signature, data);
}

async function bundleBytes(): Promise<{ minified: number; gzip: number }> {
  const { outputFiles } = await build({
    entryPoints: [new URL("../format/verify.ts", import.meta.url).pathname],
    bundle: true,
    minify: true,
    write: false,
    platform: "browser",
    format: "esm",
  });
  const contents = outputFiles[0]?.contents ?? new Uint8Array(0);
  return { minified: contents.length, gzip: gzipSync(contents, { level: 9 }).length };
}

const verify = () => verifyAttestation(document, options);
const results = {
  oneAtATime: await measure(verify, 1),
  eightAtATime: await measure(verify, 8),
  oneP384Verification: await measure(await curve(), 1),
  bundle: await bundleBytes(),
};
console.error("                         per second    CPU ms each");
for (const [name, { perSecond, cpuMs }] of [
  ["verify, one at a time", results.oneAtATime],
  ["verify, eight at a time", results.eightAtATime],
  ["one P-384 verification", results.oneP384Verification],
] as const) {
  console.error(`${name.padEnd(25)}${String(perSecond).padStart(10)}${cpuMs.toFixed(2).padStart(15)}`);
}
console.error(`bundle: ${results.bundle.minified} bytes minified, ${results.bundle.gzip} with gzip`);
console.log(JSON.stringify(results, null, 2));
