/**
 * Serve the page on this machine: `node serve.ts http://127.0.0.1:8080 release.json [root fingerprint]`. In production
 * these are three files on an origin of yours, and not the enclave's: a page that the enclave's parent serves may say
 * "verified" without checking.
 */
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { build } from "esbuild";

export interface PageOptions {
  /** URL of the enclave. */
  readonly enclave: string;
  /** What `cloister build --json` printed, or a policy. */
  readonly policy: unknown;
  /** Fingerprints of the roots to trust instead of AWS's. */
  readonly roots?: readonly string[];
  /** Default: any. */
  readonly port?: number;
}

export interface Page extends AsyncDisposable {
  readonly url: string;
  /** page.js, bytes. */
  readonly sizeBytes: number;
}

/** No other origin's scripts, and connections to this one and the enclave alone. */
function securityPolicy(enclave: string): string {
  return `default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self' ${enclave}`;
}

export async function servePage({ port = 0, ...accept }: PageOptions): Promise<Page> {
  const directory = import.meta.dirname;
  const { outputFiles } = await build({
    entryPoints: [join(directory, "page.ts")],
    ...{ bundle: true, minify: true, write: false, format: "esm", platform: "browser", target: "es2022" },
  });
  const script = Buffer.from(outputFiles[0]?.contents ?? []);
  const files: Readonly<Record<string, readonly [type: string, content: Buffer]>> = {
    "/": ["text/html; charset=utf-8", await readFile(join(directory, "index.html"))],
    "/page.js": ["text/javascript; charset=utf-8", script],
    "/accept.json": ["application/json", Buffer.from(JSON.stringify(accept))],
  };
  const server = createServer(({ url }, response) => {
    const file = files[url ?? ""];
    if (file === undefined) return void response.writeHead(404).end();
    response.setHeader("content-security-policy", securityPolicy(accept.enclave));
    response.setHeader("content-type", file[0]).end(file[1]);
  }).listen(port, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    sizeBytes: script.length,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

if (import.meta.main) {
  const [enclave, release, root] = process.argv.slice(2);
  if (enclave === undefined || release === undefined) {
    console.error("usage: node serve.ts URL RELEASE.json [ROOT FINGERPRINT]");
    process.exit(2);
  }
  const policy = JSON.parse(await readFile(release, "utf8"));
  const page = await servePage({ enclave, policy, ...(root === undefined ? {} : { roots: [root] }) });
  console.log(page.url);
}
