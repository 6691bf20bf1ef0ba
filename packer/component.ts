/** Software as a bill of materials names it. */
import type { Lockfiles } from "./lock.ts";
import type { Package } from "./package.ts";

export interface Digest {
  /** As CycloneDX and, without its dash, SPDX name it. */
  readonly algorithm: "SHA-1" | "SHA-256" | "SHA-384" | "SHA-512";
  /** Hexadecimal. */
  readonly value: string;
}

export interface Component {
  /** With its scope: `@hono/node-server`. */
  readonly name: string;
  readonly version: string;
  /** As its author states it, mostly an SPDX expression; undefined: not stated. */
  readonly license: string | undefined;
  /** Package URL (ECMA-427): what vulnerability databases look it up by. */
  readonly purl: string;
  /** Common platform enumeration (NISTIR 7695), where there is one: older databases have nothing else. */
  readonly cpe?: string;
  /** Of the archive that it came in, where that is known. */
  readonly digests: readonly Digest[];
}

/** An installed npm package, with its digest where a lockfile has it. */
export function npmComponent(found: Package, lockfiles: Lockfiles): Component {
  const { name, version } = found;
  return {
    name,
    version,
    license: licenseOf(found),
    purl: packageUrl("npm", name, version),
    digests: readIntegrity(lockfiles.integrityOf(found)),
  };
}

/** `pkg:npm/%40scope/name@1.0.0`. ECMA-427 §5: each part percent-encoded, the colon stays. */
export function packageUrl(type: string, name: string, version: string): string {
  const path = name.split("/").map(encodePart).join("/");
  return `pkg:${type}/${path}@${encodePart(version)}`;
}

function encodePart(text: string): string {
  return encodeURIComponent(text).replaceAll("%3A", ":");
}

/** package.json's `license`; before npm 3 it was an object, or a list by the name `licenses`. */
function licenseOf({ manifest }: Package): string | undefined {
  const { license, licenses } = manifest;
  const named = [license, ...(Array.isArray(licenses) ? licenses : [licenses])].flatMap((value) => {
    const text = typeof value === "object" && value !== null ? (value as { type?: unknown }).type : value;
    return typeof text === "string" && text.trim() !== "" ? [text.trim()] : [];
  });
  // Of such a list the user may choose.
  return named.length > 1 ? `(${named.join(" OR ")})` : named[0];
}

const ALGORITHMS: Readonly<Record<string, Digest["algorithm"]>> = {
  sha1: "SHA-1",
  sha256: "SHA-256",
  sha384: "SHA-384",
  sha512: "SHA-512",
};

/** Subresource Integrity (W3C), as lockfiles have it: `sha512-BASE64`, several with spaces between. */
function readIntegrity(text: string | undefined): Digest[] {
  return (text ?? "").split(" ").flatMap((part) => {
    const [, name = "", base64 = ""] = /^(sha\d+)-([A-Za-z0-9+/]+=*)$/.exec(part) ?? [];
    const algorithm = ALGORITHMS[name];
    return algorithm === undefined
      ? []
      : [{ algorithm, value: Buffer.from(base64, "base64").toString("hex") }];
  });
}
