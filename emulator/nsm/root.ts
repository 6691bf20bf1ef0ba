/**
 * The development root: made once per user, kept private. Every emulated enclave's documents are signed under it, and
 * nobody's verifier trusts it unless told to.
 *
 * The folder has `root-key.pem` (PKCS #8 key and certificate, mode 0600) and `root.pem`, the certificate alone, which is
 * what verifiers are given.
 */
import { createPrivateKey, createPublicKey, randomBytes, X509Certificate } from "node:crypto";
import { link, mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { createKeyPair, exportSpki, issueCertificate } from "../../format/authority.ts";
import { CloisterError, mismatch } from "../../format/failure.ts";
import { authority, BACKDATED_MS, ORGANIZATION, serial } from "./certificate.ts";

export interface DevelopmentRoot {
  readonly key: CryptoKey;
  /** DER. */
  readonly certificate: Uint8Array;
  /** File with the certificate alone, PEM. */
  readonly path: string;
}

const KEY_FILE = "root-key.pem";
const CERTIFICATE_FILE = "root.pem";
/** As long as AWS's own root. */
const LIFETIME_MS = 30 * 365 * 86_400_000;

/** XDG base directory specification: data that are the user's own. */
export function developmentRootFolder(env: NodeJS.ProcessEnv = process.env): string {
  const { XDG_DATA_HOME: data } = env;
  // The specification has relative paths ignored.
  const base = data?.startsWith("/") ? data : join(homedir(), ".local/share");
  return join(base, "cloister/attestation");
}

/** The certificate's file in there: what verifiers are given. It is made with the first document. */
export function developmentRootPath(env?: NodeJS.ProcessEnv): string {
  return join(developmentRootFolder(env), CERTIFICATE_FILE);
}

/**
 * The root in this folder; it is made where there is none, one and the same for all processes that ask at once.
 * Rejects with E_DEVELOPMENT_ROOT: the folder cannot be written, the key is not a key, or not private.
 */
export async function openDevelopmentRoot(folder = developmentRootFolder()): Promise<DevelopmentRoot> {
  const path = join(folder, KEY_FILE);
  try {
    const pem = (await readKeyFile(path)) ?? (await createKeyFile(folder, path));
    const root = await readRoot(pem, path);
    const certificatePath = join(folder, CERTIFICATE_FILE);
    await publish(certificatePath, root.certificate);
    return { ...root, path: certificatePath };
  } catch (cause) {
    if (cause instanceof CloisterError) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    const text = `${path}: got ${code ?? message}, expected a development root`;
    throw new CloisterError("E_DEVELOPMENT_ROOT", text, { cause });
  }
}

/** Undefined where there is none yet. */
async function readKeyFile(path: string): Promise<string | undefined> {
  try {
    await using file = await open(path);
    const { mode } = await file.stat();
    const others = mode & 0o077;
    if (others === 0) return await file.readFile("utf8");
    throw mismatch("E_DEVELOPMENT_ROOT", `${path}: mode`, (mode & 0o777).toString(8), "600");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/** Of several at once the first wins: link(2) never replaces. Nobody sees a file that is not whole. */
async function createKeyFile(folder: string, path: string): Promise<string> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const draft = `${path}.${randomBytes(8).toString("hex")}`;
  try {
    await writeWhole(draft, await generateRoot(), 0o600);
    await link(draft, path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "EEXIST") throw error;
    });
  } finally {
    await rm(draft, { force: true });
  }
  const pem = await readKeyFile(path);
  if (pem === undefined) throw mismatch("E_DEVELOPMENT_ROOT", path, "nothing", "what was written there");
  return pem;
}

async function writeWhole(path: string, text: string, mode: number): Promise<void> {
  await using file = await open(path, "wx", mode);
  await file.writeFile(text);
  await file.sync();
}

async function generateRoot(): Promise<string> {
  const { privateKey, publicKey } = await createKeyPair(true);
  const name = [...ORGANIZATION, { name: "commonName", value: "cloister development root" }];
  const now = Date.now();
  const certificate = await issueCertificate(
    {
      serial: serial(),
      issuer: name,
      subject: name,
      notBefore: now - BACKDATED_MS,
      notAfter: now + LIFETIME_MS,
      ...authority(await exportSpki(publicKey), undefined, undefined),
    },
    privateKey,
  );
  const pkcs8 = new Uint8Array(await globalThis.crypto.subtle.exportKey("pkcs8", privateKey));
  return encodePem("PRIVATE KEY", pkcs8) + encodePem("CERTIFICATE", certificate);
}

async function readRoot(pem: string, path: string): Promise<Omit<DevelopmentRoot, "path">> {
  const key = createPrivateKey(pem);
  const certificate = new X509Certificate(pem);
  if (!certificate.publicKey.equals(createPublicKey(key))) {
    throw mismatch("E_DEVELOPMENT_ROOT", path, "another key's certificate", "the key's own");
  }
  const pkcs8 = new Uint8Array(key.export({ type: "pkcs8", format: "der" }));
  const algorithm = { name: "ECDSA", namedCurve: "P-384" };
  const imported = await globalThis.crypto.subtle.importKey("pkcs8", pkcs8, algorithm, false, ["sign"]);
  return { key: imported, certificate: new Uint8Array(certificate.raw) };
}

/** The certificate's own file, made from the key's: whoever finds another there has a stale copy. */
async function publish(path: string, certificate: Uint8Array): Promise<void> {
  const pem = encodePem("CERTIFICATE", certificate);
  const found = await readFile(path, "utf8").catch(() => undefined);
  if (found === pem) return;
  const draft = `${path}.${randomBytes(8).toString("hex")}`;
  await writeWhole(draft, pem, 0o644);
  await rename(draft, path);
}

/** RFC 7468 §2: lines of 64 characters. */
export function encodePem(label: string, der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString("base64")
      .match(/.{1,64}/g) ?? [];
  return [`-----BEGIN ${label}-----`, ...lines, `-----END ${label}-----`, ""].join("\n");
}
