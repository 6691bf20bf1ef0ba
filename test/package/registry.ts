/**
 * A registry that has packed tarballs of ours and sends clients to the real one for everything else, so that
 * `npm create cloister` is typed as users type it: https://github.com/npm/registry/blob/main/docs/REGISTRY-API.md.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { basename } from "node:path";

/** Yarn takes nothing that was published within a day: https://yarnpkg.com/configuration/yarnrc#npmMinimalAgeGate */
const PUBLISHED = "2026-01-01T00:00:00.000Z";

export interface Registry extends AsyncDisposable {
  /** Of this machine alone; ends in a slash. */
  readonly url: string;
}

/** Serve the packages of these files, as `npm pack` writes them. */
export async function startRegistry(tarballs: readonly string[]): Promise<Registry> {
  const real = configured();
  const packages = new Map(tarballs.map((path) => [manifestOf(path).name, path]));
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? "/", url).pathname).slice(1);
    const file = tarballs.find((tarball) => path === `-/${basename(tarball)}`);
    const tarball = packages.get(path);
    if (file !== undefined) response.end(readFileSync(file));
    else if (tarball !== undefined) {
      response.setHeader("content-type", "application/json").end(JSON.stringify(packument(tarball, url)));
    } else response.writeHead(302, { location: new URL(request.url ?? "/", real).href }).end();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  return {
    url,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

interface Manifest {
  readonly name: string;
  readonly version: string;
}

function manifestOf(tarball: string): Manifest {
  return JSON.parse(execFileSync("tar", ["-xzOf", tarball, "package/package.json"], { encoding: "utf8" }));
}

/** What a registry tells of a package that has one version. */
function packument(tarball: string, url: string): object {
  const manifest = manifestOf(tarball);
  const { name, version } = manifest;
  const integrity = `sha512-${createHash("sha512").update(readFileSync(tarball)).digest("base64")}`;
  const dist = { tarball: `${url}-/${basename(tarball)}`, integrity };
  const versions = { [version]: { ...manifest, dist } };
  return { name, "dist-tags": { latest: version }, time: { [version]: PUBLISHED }, versions };
}

/** The registry that npm uses here. */
function configured(): string {
  const words = ["config", "get", "registry"];
  return execFileSync("npm", words, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
}
