/** An OAuth 2.0 token endpoint (client credentials, RFC 6749 §4.4) whose signing key nobody can copy. */
import { createHash } from "node:crypto";
import { attest } from "cloister/runtime";
import { createIssuer } from "./issuer.ts";

const LIFETIME_SECONDS = 600;
const issuer = await createIssuer({
  issuer: process.env.ISSUER ?? "",
  audience: process.env.AUDIENCE ?? "",
  clients: new Map(readClients(process.env.CLIENTS ?? "")),
  lifetime: LIFETIME_SECONDS,
});
const keys = JSON.stringify(issuer.keys);

export default {
  async fetch(request: Request): Promise<Response> {
    const { pathname, protocol, searchParams } = new URL(request.url);
    if (pathname === "/.well-known/jwks.json") return json(keys);
    if (pathname === "/jwks-attestation") return await attestKeys(searchParams.get("nonce") ?? "");
    if (pathname === "/token" && request.method === "POST") {
      // The client's secret must not be the parent's to read.
      if (protocol !== "https:")
        return refuse(403, "invalid_request", "only attested connections are served");
      return await issue(new URLSearchParams(await request.text()));
    }
    return refuse(404, "invalid_request", "expected POST /token or /.well-known/jwks.json");
  },
};

async function issue(form: URLSearchParams): Promise<Response> {
  if (form.get("grant_type") !== "client_credentials")
    return refuse(400, "unsupported_grant_type", "expected client_credentials");
  const token = await issuer.issue(form.get("client_id") ?? "", form.get("client_secret") ?? "");
  if (token === undefined) return refuse(401, "invalid_client", "expected a known client and its secret");
  const body = { access_token: token, token_type: "Bearer", expires_in: LIFETIME_SECONDS };
  return Response.json(body, { headers: { "cache-control": "no-store" } });
}

/** A document whose user data is the hash of the key set: who trusts the tokens checks it once for each key. */
async function attestKeys(nonce: string): Promise<Response> {
  if (!/^(?:[0-9a-f]{2}){16,64}$/.test(nonce))
    return refuse(400, "invalid_request", "nonce: expected 16 to 64 bytes in hexadecimal");
  const userData = createHash("sha256").update(keys).digest();
  return new Response(Buffer.from(await attest({ nonce: Buffer.from(nonce, "hex"), userData })));
}

/** `NAME:HASH,NAME:HASH` */
function readClients(text: string): [string, string][] {
  return text.split(",").map((client) => {
    const [name = "", hash = ""] = client.split(":");
    return [name, hash];
  });
}

function json(text: string): Response {
  return new Response(text, { headers: { "content-type": "application/json" } });
}

function refuse(status: number, error: string, description: string): Response {
  return Response.json({ error, error_description: description }, { status });
}
