/** `cloister attest` as a function: saved documents, and endpoints that answer as they should or otherwise. */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { Io } from "../../cli/command.ts";
import { endpointOf } from "../../cli/endpoint.ts";
import { main } from "../../cli/main.ts";
import { fetchAttestation } from "../../client/endpoint.ts";
import { developmentRootFolder } from "../../emulator/index.ts";
import { SigningAuthority } from "../../emulator/nsm/signer.ts";
import { ATTESTATION_CONTENT_TYPE, DOCUMENT_MAX } from "../../format/attestation.ts";
import { describeEif } from "../../format/describe.ts";
import { bytesReader } from "../../format/reader.ts";
import { toHex } from "../../format/struct.ts";
import { startEnclave } from "../client/enclave.ts";
import { type Chain, createChain, NONCE, POLICY, register, signed } from "../format/authority.ts";
import { fromHex, rejection, vector } from "../format/vectors.ts";

const folder = mkdtempSync(join(tmpdir(), "cloister-attest-"));
const servers: Server[] = [];
let chain: Chain;
let root: string;
let pcrs: string;

function file(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

beforeAll(async () => {
  const now = Date.now();
  // Valid around this machine's clock: the endpoint's documents are of now.
  const spoil = { notBefore: now - 60_000, notAfter: now + 3_600_000 };
  chain = await createChain({ 0: spoil, 1: spoil, 2: spoil, 3: spoil, 4: spoil });
  root = file("root.der", chain.certificates[0] ?? "");
  pcrs = file("pcrs.json", JSON.stringify({ EifPath: "a.eif", Measurements: POLICY }));
});

afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

afterAll(() => rmSync(folder, { recursive: true }));

async function serve(listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** An endpoint that does what cloister's own does. */
async function enclave(changes: object = {}): Promise<string> {
  return serve((request, response) => {
    const url = new URL(request.url ?? "", "http://enclave");
    const nonce = fromHex(url.searchParams.get("nonce") ?? "");
    expect([request.method, url.pathname, nonce.length]).toEqual(["GET", "/.well-known/attestation", 32]);
    signed(chain, { timestamp: Date.now(), nonce, ...changes }).then((document) => {
      response.setHeader("content-type", ATTESTATION_CONTENT_TYPE);
      response.end(document);
    });
  });
}

async function call(...words: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  return callWith({}, ...words);
}

async function callWith(env: NodeJS.ProcessEnv, ...words: string[]) {
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const io: Io = { stdout, stderr, env, directory: "/", signal: new AbortController().signal };
  const status = await main(["attest", ...words], io);
  const read = (stream: PassThrough) => String(stream.read() ?? "");
  return { status, stdout: read(stdout), stderr: read(stderr) };
}

describe("a file", () => {
  const real = "test/vectors/attestation/real-aws-2.bin";
  const at = ["--at", "2024-12-13T07:38:30Z"];
  const accepted = {
    PCR0: "189038eccf28a3a098949e402f3b3d86a876f4915c5b02d546abb5d8c507ceb1755b8192d8cfca66e8f226160ca4c7a6",
  };

  test("made by hardware is verified as of its day, every step in words", async () => {
    const policy = file("real.json", JSON.stringify(accepted));
    const { status, stdout, stderr } = await call(real, "--skip-nonce", "--pcrs", policy, ...at);
    expect(stderr).toBe("");
    expect(status).toBe(0);
    expect(stdout).toMatch(/^ok {10}The document is a COSE_Sign1/);
    expect(stdout).toContain("not checked It answers the nonce that was sent");
    expect(stdout).toMatch(/\nverified; not checked: nonce, public key, user data\n$/);
    expect(stdout).not.toMatch(/[^\n -~→]/);
  });

  test("of an emulated enclave is verified with --root dev, by its own user alone", async () => {
    const env = { XDG_DATA_HOME: join(folder, "data") };
    const { sign } = new SigningAuthority(developmentRootFolder(env)).signerFor("i-0-enc1", "i-0");
    const pcr = (index: number) => [index, register(0x10 + index)] as const;
    const document = await sign({
      ...{ moduleId: "i-0-enc1", digest: "SHA384", timestamp: Date.now(), nonce: NONCE },
      ...{ pcrs: new Map([0, 1, 2].map(pcr)), publicKey: null, userData: null },
    });
    const words = [file("emulated.bin", document), "--nonce", toHex(NONCE), "--pcrs", pcrs];
    expect(await callWith(env, ...words, "--root", "dev")).toMatchObject({ status: 0, stderr: "" });
    const other = { XDG_DATA_HOME: join(folder, "other") };
    expect((await callWith(other, ...words, "--root", "dev")).stderr).toContain("E_ATTESTATION_ROOT");
    expect((await callWith(env, ...words)).stderr).toMatch(/E_ATTESTATION_ROOT.*--root dev/s);
  });

  test("is one JSON value with --json, verified or not", async () => {
    const policy = file("real.json", JSON.stringify([accepted]));
    const good = await call(real, "--skip-nonce", "--pcrs", policy, ...at, "--json");
    expect(good.status).toBe(0);
    const { Verified, Steps, Document } = JSON.parse(good.stdout);
    expect([Verified, Steps.length, Document.Timestamp]).toEqual([true, 12, "2024-12-13T07:37:58.960Z"]);
    expect(Document.Measurements).toMatchObject(accepted);
    const bad = await call(real, "--skip-nonce", "--pcrs", policy, "--json");
    expect(bad.status).toBe(1);
    const { Verified: verified, FailedStep, Steps: steps, Error: error } = JSON.parse(bad.stdout);
    expect([verified, FailedStep, error.Code]).toEqual([false, "chain", "E_ATTESTATION_CHAIN"]);
    expect(steps.at(-1)).toMatchObject({ Name: "chain", Status: "failed", Expected: expect.any(String) });
    expect(bad.stderr).toMatch(
      /^error E_ATTESTATION_CHAIN: chain: cabundle\[1\]: validity at this clock's time/,
    );
  });

  test("of today fails with the step, what was found and what was expected", async () => {
    const { status, stdout, stderr } = await call(real, "--skip-nonce", "--pcrs", pcrs, ...at);
    expect(status).toBe(1);
    expect(stdout).toMatch(
      /FAILED {6}What runs in the enclave is what the policy accepts\n {12}registers: PCR0 1890.*\n {12}expected: PCR0 1010/,
    );
    expect(stdout).not.toContain("verified");
    expect(stderr).toMatch(/^error E_ATTESTATION_PCRS: registers: releases: got PCR0 1890/);
  });

  test("under our own root needs --root, and its nonce", async () => {
    const document = file("own.bin", await signed(chain, { timestamp: Date.now() }));
    const nonce = toHex(NONCE);
    expect((await call(document, "--pcrs", pcrs, "--nonce", nonce, "--root", root)).status).toBe(0);
    const der = Buffer.from(chain.certificates[0] ?? "").toString("base64");
    const pem = file("root.pem", `# ours\n-----BEGIN CERTIFICATE-----\n${der}\n-----END CERTIFICATE-----\n`);
    expect((await call(document, "--pcrs", pcrs, "--nonce", nonce.toUpperCase(), "--root", pem)).status).toBe(
      0,
    );
    const foreign = await call(document, "--pcrs", pcrs, "--nonce", nonce);
    expect([foreign.status, foreign.stderr]).toEqual([1, expect.stringMatching(/^error E_ATTESTATION_ROOT/)]);
    const stale = await call(document, "--pcrs", pcrs, "--nonce", "00".repeat(32), "--root", root);
    expect([stale.status, stale.stderr]).toEqual([1, expect.stringMatching(/^error E_ATTESTATION_NONCE/)]);
  });

  test("is verified against images themselves", async () => {
    const image = "test/vectors/eif/S-secp384r1.eif";
    const options = { createSha384: () => createHash("sha384") };
    const { Measurements } = await describeEif(bytesReader(vector("eif/S-secp384r1.eif")), options);
    const registers = Object.entries(Measurements).filter(([name]) => name.startsWith("PCR"));
    const values = new Map(registers.map(([name, value]) => [Number(name.slice(3)), fromHex(value)]));
    expect([...values.keys()]).toEqual([0, 1, 2, 8]);
    const document = file("image.bin", await signed(chain, { timestamp: Date.now(), pcrs: values }));
    const words = [document, "--nonce", toHex(NONCE), "--root", root];
    expect((await call(...words, "--eif", image)).status).toBe(0);
    expect((await call(...words, "--eif", "test/vectors/eif/B.eif", "--eif", image)).status).toBe(0);
    const other = await call(...words, "--eif", "test/vectors/eif/B.eif");
    expect([other.status, other.stderr]).toEqual([1, expect.stringMatching(/^error E_ATTESTATION_PCRS/)]);
  });

  test.each<[string, string, () => string[]]>([
    [
      "no such document",
      "E_ATTESTATION_READ: /nonexistent: got ENOENT",
      () => ["/nonexistent", "--skip-nonce", "--pcrs", pcrs],
    ],
    ["a folder", "E_ATTESTATION_READ: ", () => [folder, "--skip-nonce", "--pcrs", pcrs]],
    [
      "a huge file",
      "got 1048577 bytes, expected at most 1048576",
      () => [file("huge", new Uint8Array((1 << 20) + 1)), "--skip-nonce", "--pcrs", pcrs],
    ],
    [
      "a document in base64",
      "E_ATTESTATION_FORMAT: envelope: ",
      () => [
        file("base64", Buffer.from(vector("attestation/real-aws-2.bin")).toString("base64")),
        "--skip-nonce",
        "--pcrs",
        pcrs,
      ],
    ],
    ["no such image", "E_EIF_READ: /nonexistent", () => [real, "--skip-nonce", "--eif", "/nonexistent"]],
    [
      "measurements that are not JSON",
      "E_ATTESTATION_POLICY: ",
      () => [real, "--skip-nonce", "--pcrs", file("text", "PCR0")],
    ],
    [
      "measurements of debug mode",
      "PCR0: got zeros, expected a measurement",
      () => [real, "--skip-nonce", "--pcrs", file("zero", JSON.stringify({ PCR0: "0".repeat(96) }))],
    ],
    [
      "a root that is text",
      "E_DER: PEM: got no certificate",
      () => [real, "--skip-nonce", "--pcrs", pcrs, "--root", pcrs],
    ],
  ])("%s is refused", async (_, message, words) => {
    const { status, stderr } = await call(...words());
    expect([status, stderr]).toEqual([1, expect.stringContaining(message)]);
  });

  test.each([
    [[real, "--skip-nonce"], "expected either --eif FILE or --pcrs FILE"],
    [[real, "--skip-nonce", "--eif", "a", "--pcrs", "b"], "expected either --eif FILE or --pcrs FILE"],
    [[real, "--pcrs", "a"], "a file needs its nonce, --nonce HEX, or else --skip-nonce"],
    [[real, "--pcrs", "a", "--skip-nonce", "--nonce", "00"], "a file needs its nonce"],
    [[real, "--eif", "a", "--nonce", "0011"], "--nonce: got 4 characters, expected 16 to 512 bytes"],
    [[real, "--eif", "test/vectors/eif/A.eif", "--skip-nonce", "--at", "noon"], '--at: got "noon"'],
    [[real, "--eif", "test/vectors/eif/A.eif", "--skip-nonce", "--max-age", "-1"], "--max-age"],
    [["http://127.0.0.1", "--eif", "a", "--skip-nonce"], "found --skip-nonce or --at with a URL"],
    [["https://127.0.0.1/app", "--eif", "test/vectors/eif/A.eif"], "expected a URL such as"],
    [["http://", "--eif", "test/vectors/eif/A.eif"], "expected a URL such as"],
    [[], "found no URL or file"],
  ])("%j is a usage error", async (words, message) => {
    const { status, stderr } = await call(...words.map(String));
    expect([status, stderr]).toEqual([2, expect.stringContaining(message)]);
  });
});

describe("a URL", () => {
  test("is asked with a fresh nonce, and verified", async () => {
    const { status, stdout, stderr } = await call(await enclave(), "--pcrs", pcrs, "--root", root);
    expect(stderr).toBe("");
    expect([status, stdout]).toEqual([
      0,
      expect.stringContaining("verified; not checked: public key, user data"),
    ]);
  });

  test("whose nonce is another is refused", async () => {
    const { status, stderr } = await call(await enclave({ nonce: NONCE }), "--pcrs", pcrs, "--root", root);
    expect([status, stderr]).toEqual([1, expect.stringContaining("E_ATTESTATION_NONCE: nonce: ")]);
  });

  const type = { "content-type": ATTESTATION_CONTENT_TYPE };

  test.each<[string, RequestListener, string]>([
    [
      "HTML",
      (_, response) => response.setHeader("content-type", "text/html; charset=utf-8").end("<html>"),
      'got content type "text/html; charset=utf-8", expected application/cose',
    ],
    ["no type", (_, response) => response.end("a"), 'got content type "", expected application/cose'],
    [
      "an escape in its type",
      (_, response) => response.setHeader("content-type", "a/b\u009b2J").end(),
      'got content type "a/b\\u009b2J"',
    ],
    ["404", (_, response) => response.writeHead(404, type).end(), "got status 404, expected 200"],
    ["204", (_, response) => response.writeHead(204, type).end(), "got status 204, expected 200"],
    [
      "a byte too much",
      (_, response) => response.writeHead(200, type).end(new Uint8Array(DOCUMENT_MAX + 1)),
      `got more than ${DOCUMENT_MAX} bytes`,
    ],
    [
      "bytes without end",
      (_, response) => pour(response.writeHead(200, type)),
      `got more than ${DOCUMENT_MAX} bytes`,
    ],
    [
      "a broken connection",
      (_, response) =>
        response.writeHead(200, { ...type, "content-length": 100 }).write("a", () => response.destroy()),
      "got ",
    ],
    ["nothing but a hang-up", (request) => request.destroy(), "got "],
  ])("that answers with %s is refused", async (_, listener, message) => {
    const url = await serve(listener);
    const { status, stderr } = await call(url, "--pcrs", pcrs, "--root", root);
    expect([status, stderr]).toEqual([1, expect.stringContaining("E_ATTESTATION_FETCH: http://127.0.0.1:")]);
    expect(stderr).toContain(message);
    expect(stderr).not.toContain("fetch failed");
  });

  test("that sends on to another is refused, though that one's document is good", async () => {
    const good = await enclave();
    const url = await serve((request, response) => {
      response.writeHead(307, { location: `${good}${request.url}` }).end();
    });
    expect((await call(good, "--pcrs", pcrs, "--root", root)).status).toBe(0);
    const { status, stderr } = await call(url, "--pcrs", pcrs, "--root", root);
    expect([status, stderr]).toEqual([1, expect.stringContaining(`E_ATTESTATION_FETCH: ${url}`)]);
  });

  test("nobody answers at is refused", async () => {
    const url = await serve(() => {});
    for (const server of servers.splice(0)) await new Promise((resolve) => server.close(resolve));
    const { status, stderr } = await call(url, "--pcrs", pcrs);
    expect([status, stderr]).toEqual([1, expect.stringContaining("got ECONNREFUSED, expected an answer")]);
  });

  test.each<[string, RequestListener]>([
    ["never", () => {}],
    ["with a head alone", (_, response) => response.writeHead(200, type).flushHeaders()],
    ["byte by byte, without end", (_, response) => drip(response.writeHead(200, type))],
  ])("that answers %s is given up", async (_, listener) => {
    const endpoint = endpointOf(await serve(listener));
    const never = new AbortController().signal;
    expect(await rejection(fetchAttestation(endpoint, NONCE, { signal: never, deadline: 300 }))).toBe(
      `E_ATTESTATION_FETCH: ${endpoint.href}: got no whole answer, expected one within 0.3 s`,
    );
  });

  test.each([
    ["in the enclave", {}],
    ["before the enclave", { boundKey: new Uint8Array(32).fill(7) }],
  ])("over TLS that ends %s says so", async (where, changes) => {
    const app = { fetch: () => new Response() };
    await using enclave = await startEnclave({ chain, app, tls: true, ...changes });
    const { status, stdout } = await call(enclave.url, "--pcrs", pcrs, "--root", root);
    expect([status, stdout]).toEqual([0, expect.stringContaining(`verified; TLS ends ${where}`)]);
    const asked = await call(enclave.url, "--pcrs", pcrs, "--root", root, "--json");
    expect(JSON.parse(asked.stdout)).toMatchObject({
      TlsEndsIn: where === "in the enclave" ? "enclave" : "elsewhere",
    });
  });

  test("may be given up by the user", async () => {
    const endpoint = endpointOf(await serve(() => {}));
    const user = new AbortController();
    const asking = rejection(fetchAttestation(endpoint, NONCE, { signal: user.signal }));
    user.abort();
    expect(await asking).toMatch(/got "This operation was aborted", expected an answer$/);
  });
});

function pour(response: NodeJS.WritableStream): void {
  const chunk = new Uint8Array(65_536);
  const more = () => {
    while (response.writable && response.write(chunk));
  };
  response.on("drain", more);
  more();
}

function drip(response: NodeJS.WritableStream): void {
  const timer = setInterval(() => response.write("a"), 5);
  response.on("close", () => clearInterval(timer));
}
