/** The development root on disk, and the chain under it. */
import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { developmentRootFolder, openDevelopmentRoot } from "../../emulator/nsm/root.ts";
import { SigningAuthority } from "../../emulator/nsm/signer.ts";
import { decodeAttestation, decodeEnvelope } from "../../format/attestation.ts";
import { decodePem } from "../../format/certificate.ts";
import { toHex } from "../../format/struct.ts";
import { fingerprint, verifyAttestation } from "../../format/verify.ts";

let base: string;
let folder: string;
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), "cloister-root-"));
  folder = join(base, "deep/folder");
});
afterEach(() => rmSync(base, { recursive: true, force: true }));

const mode = (path: string) => (statSync(path).mode & 0o777).toString(8);

describe("development root", () => {
  test("is made once, the key for its user alone", async () => {
    const first = await openDevelopmentRoot(folder);
    const second = await openDevelopmentRoot(folder);
    expect(second.certificate).toEqual(first.certificate);
    expect(readdirSync(folder).sort()).toEqual(["root-key.pem", "root.pem"]);
    expect([folder, join(folder, "root-key.pem"), first.path].map(mode)).toEqual(["700", "600", "644"]);
    const published = readFileSync(first.path);
    expect(decodePem(published)).toEqual(first.certificate);
    expect(published.toString()).not.toContain("PRIVATE");
  });

  test("another folder, another root", async () => {
    const [one, other] = await Promise.all([
      openDevelopmentRoot(folder),
      openDevelopmentRoot(join(base, "b")),
    ]);
    expect(toHex(one.certificate)).not.toBe(toHex(other.certificate));
  });

  test("is one, though many processes and calls make it at once", async () => {
    const script = join(import.meta.dirname, "nsm-root-child.ts");
    const calls = Array.from({ length: 8 }, async () => (await openDevelopmentRoot(folder)).certificate);
    const children = Array.from({ length: 3 }, () => execChild(script));
    const all = [...(await Promise.all(calls)).map(toHex), ...(await Promise.all(children))];
    expect(new Set(all).size).toBe(1);
    expect(readdirSync(folder).sort()).toEqual(["root-key.pem", "root.pem"]);
  });

  async function execChild(script: string): Promise<string> {
    const { promisify } = await import("node:util");
    const { execFile } = await import("node:child_process");
    return (await promisify(execFile)(process.execPath, [script, folder])).stdout.trim();
  }

  test.each([0o640, 0o604, 0o666])(
    "a key of mode %o is refused, and how to mend it is said",
    async (bits) => {
      const { path } = await openDevelopmentRoot(folder);
      expect(existsSync(path)).toBe(true);
      chmodSync(join(folder, "root-key.pem"), bits);
      await expect(openDevelopmentRoot(folder)).rejects.toMatchObject({
        code: "E_DEVELOPMENT_ROOT",
        got: bits.toString(8),
        expected: "600",
      });
    },
  );

  test.each([
    ["empty", () => ""],
    ["no key", (pem: string) => pem.slice(pem.indexOf("-----BEGIN CERTIFICATE"))],
    ["no certificate", (pem: string) => pem.slice(0, pem.indexOf("-----BEGIN CERTIFICATE"))],
    ["damaged", (pem: string) => pem.replace("MIG", "MIH")],
  ])("a key file that is %s", async (_, damage) => {
    await openDevelopmentRoot(folder);
    const path = join(folder, "root-key.pem");
    writeFileSync(path, damage(readFileSync(path, "utf8")));
    await expect(openDevelopmentRoot(folder)).rejects.toMatchObject({ code: "E_DEVELOPMENT_ROOT" });
  });

  test("a key with the certificate of another", async () => {
    await openDevelopmentRoot(folder);
    const { path: other } = await openDevelopmentRoot(join(base, "b"));
    const path = join(folder, "root-key.pem");
    const key = readFileSync(path, "utf8").split("-----BEGIN CERTIFICATE")[0];
    writeFileSync(path, key + readFileSync(other, "utf8"));
    await expect(openDevelopmentRoot(folder)).rejects.toMatchObject({ expected: "the key's own" });
  });

  test("a folder that cannot be made", async () => {
    writeFileSync(join(base, "deep"), "a file");
    await expect(openDevelopmentRoot(folder)).rejects.toMatchObject({
      code: "E_DEVELOPMENT_ROOT",
      message: expect.stringContaining("ENOTDIR"),
    });
  });

  test("a certificate's file that is stale is written again", async () => {
    const { path } = await openDevelopmentRoot(folder);
    const good = readFileSync(path, "utf8");
    writeFileSync(path, "stale");
    await openDevelopmentRoot(folder);
    expect(readFileSync(path, "utf8")).toBe(good);
  });

  test("lies in the XDG data directory", () => {
    expect(developmentRootFolder({ XDG_DATA_HOME: "/data" })).toBe("/data/cloister/attestation");
    for (const XDG_DATA_HOME of ["", "relative"]) {
      expect(developmentRootFolder({ XDG_DATA_HOME })).toMatch(
        /^\/.*\/\.local\/share\/cloister\/attestation$/,
      );
    }
  });
});

const MODULE_ID = "i-0123456789abcdef0-enc0123456789abcdef";
const pcr = new Uint8Array(48).fill(1);
const nonce = new Uint8Array(32).fill(2);
const PCRS = { PCR0: toHex(pcr), PCR1: toHex(pcr), PCR2: toHex(pcr) };

describe("chain", () => {
  const statement = (timestamp: number) => ({
    ...({
      moduleId: MODULE_ID,
      digest: "SHA384",
      timestamp,
      nonce,
      publicKey: null,
      userData: null,
    } as const),
    pcrs: new Map([0, 1, 2].map((index) => [index, pcr])),
  });

  test("has hardware's depth, path lengths, lifetimes and usages; OpenSSL verifies it too", async () => {
    const authority = new SigningAuthority(folder);
    const { sign } = authority.signerFor(MODULE_ID, "i-0123456789abcdef0");
    const document = await sign(statement(Date.now()));
    const roots = [await fingerprint((await authority.root()).certificate)];
    await verifyAttestation(document, { pcrs: PCRS, nonce, roots });
    await expect(verifyAttestation(document, { pcrs: PCRS, nonce })).rejects.toMatchObject({ step: "root" });
    const { caBundle, certificate } = decodeAttestation(decodeEnvelope(document).payload);
    const chain = [...caBundle, certificate].map((der) => new X509Certificate(der));
    const days = chain.map(({ validFromDate, validToDate }) =>
      Math.round((validToDate.getTime() - validFromDate.getTime()) / 3_600_000),
    );
    expect(days).toEqual([262_800, 480, 144, 24, 3]);
    for (const [i, below] of chain.slice(1).entries()) {
      const above = chain[i] as X509Certificate;
      expect(below.checkIssued(above)).toBe(true);
      expect(below.verify(above.publicKey)).toBe(true);
    }
    const pem = (certificates: readonly X509Certificate[]) => certificates.map(String).join("");
    for (const [name, from, to] of [
      ["root", 0, 1],
      ["middle", 1, 4],
      ["leaf", 4, 5],
    ] as const) {
      writeFileSync(join(base, name), pem(chain.slice(from, to)));
    }
    const words = [
      "verify",
      "-CAfile",
      join(base, "root"),
      "-untrusted",
      join(base, "middle"),
      join(base, "leaf"),
    ];
    expect(execFileSync("openssl", words, { encoding: "utf8" })).toContain("leaf: OK");
    const texts = chain.map((c) =>
      execFileSync("openssl", ["x509", "-noout", "-text"], { input: String(c), encoding: "utf8" }),
    );
    expect(texts.map((text) => /CA:(\w+(?:, pathlen:\d)?)/.exec(text)?.[1])).toEqual([
      ...["TRUE", "TRUE, pathlen:2", "TRUE, pathlen:1", "TRUE, pathlen:0", "FALSE"],
    ]);
  });

  test("is renewed before it ends, at every time of a long run", async () => {
    let now = Date.now();
    const authority = new SigningAuthority(folder, () => now);
    const { sign } = authority.signerFor(MODULE_ID, "i-0");
    const roots = [await fingerprint((await authority.root()).certificate)];
    const leaves = new Set<string>();
    const zones = new Set<string>();
    for (let hours = 0; hours < 24 * 9; hours += 1.7) {
      now = Date.now() + hours * 3_600_000;
      const document = await sign(statement(now));
      await verifyAttestation(document, { pcrs: PCRS, nonce, roots, now: now + 290_000 });
      const { caBundle, certificate } = decodeAttestation(decodeEnvelope(document).payload);
      leaves.add(toHex(certificate));
      zones.add(toHex(caBundle[2] ?? pcr));
    }
    expect(leaves.size).toBeGreaterThan(60);
    expect(leaves.size).toBeLessThan(128);
    expect(zones.size).toBe(3);
  });

  test("a document made just before renewal outlives its own maximal age", async () => {
    const begin = Date.now();
    let now = begin;
    const authority = new SigningAuthority(folder, () => now);
    const { sign } = authority.signerFor(MODULE_ID, "i-0");
    await sign(statement(now));
    const roots = [await fingerprint((await authority.root()).certificate)];
    for (let minutes = 140; minutes < 185; minutes++) {
      now = begin + minutes * 60_000;
      const document = await sign(statement(now));
      await verifyAttestation(document, { pcrs: PCRS, nonce, roots, now: now + 290_000 });
    }
  });

  test("two enclaves have two keys under one zone", async () => {
    const authority = new SigningAuthority(folder);
    const documents = [];
    for (const id of ["i-0-enc1", "i-0-enc2"]) {
      documents.push(await authority.signerFor(id, "i-0").sign(statement(Date.now())));
    }
    const [one, other] = documents.map((document) => decodeAttestation(decodeEnvelope(document).payload));
    expect(one?.certificate).not.toEqual(other?.certificate);
    expect(one?.caBundle.slice(0, 3)).toEqual(other?.caBundle.slice(0, 3));
  });

  test("a root that failed is tried again", async () => {
    writeFileSync(join(base, "deep"), "a file");
    const authority = new SigningAuthority(folder);
    await expect(authority.root()).rejects.toMatchObject({ code: "E_DEVELOPMENT_ROOT" });
    rmSync(join(base, "deep"));
    await authority.root();
  });
});
