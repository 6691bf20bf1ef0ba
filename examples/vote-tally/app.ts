/** Ballots come encrypted to the enclave; the totals leave with the hypervisor's signature. */
import { createHash } from "node:crypto";
import { attest } from "cloister/runtime";
import { Poll } from "./poll.ts";

const poll = new Poll({
  choices: (process.env.CHOICES ?? "").split(","),
  voters: (process.env.VOTERS ?? "").split(","),
});

export default {
  async fetch(request: Request): Promise<Response> {
    const { pathname, protocol, searchParams } = new URL(request.url);
    if (pathname === "/vote" && request.method === "POST") {
      // A ballot in the clear is no secret.
      if (protocol !== "https:") return refuse(403, "only attested connections are served");
      const { token, choice } = (await request.json()) as { token?: unknown; choice?: unknown };
      const reason = poll.vote(String(token), String(choice));
      return reason === undefined ? Response.json({ missing: poll.missing }) : refuse(403, reason);
    }
    if (pathname === "/result") return await publish(searchParams.get("nonce") ?? "");
    return refuse(404, "expected POST /vote or /result");
  },
};

/** The totals, and a document whose user data is their hash: anybody can check them later, without the enclave. */
async function publish(nonce: string): Promise<Response> {
  if (!/^(?:[0-9a-f]{2}){16,64}$/.test(nonce))
    return refuse(400, "nonce: expected 16 to 64 bytes in hexadecimal");
  const result = poll.result();
  if (result === undefined) return refuse(409, `${poll.missing} ballots are missing`);
  const text = JSON.stringify(result);
  const userData = createHash("sha256").update(text).digest();
  const document = await attest({ nonce: Buffer.from(nonce, "hex"), userData });
  return Response.json({ result: text, document: Buffer.from(document).toString("base64") });
}

function refuse(status: number, reason: string): Response {
  return Response.json({ error: reason }, { status });
}
