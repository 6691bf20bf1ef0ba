/** A key that signs, and proof of where it lives. */
import type { AttestOptions } from "cloister/runtime";

/** ECDSA on P-256 with SHA-256; signatures are 64 bytes, r and s. */
export const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const MESSAGE_MAX = 64 * 1024;

/** The handler, with a fresh key. The private half cannot be exported, not even by this program. */
export async function createSigner(attest: (options: AttestOptions) => Promise<Uint8Array>) {
  const keys = await crypto.subtle.generateKey(ALGORITHM, false, ["sign", "verify"]);
  const publicKey = new Uint8Array(await crypto.subtle.exportKey("spki", keys.publicKey));

  return {
    async fetch(request: Request): Promise<Response> {
      const { pathname, searchParams } = new URL(request.url);
      if (pathname === "/attest") {
        const nonce = searchParams.get("nonce") ?? "";
        if (!/^(?:[0-9a-f]{2}){16,64}$/.test(nonce))
          return refused("nonce: expected 16 to 64 bytes in hexadecimal");
        return new Response(Buffer.from(await attest({ nonce: Buffer.from(nonce, "hex"), publicKey })));
      }
      if (pathname === "/sign" && request.method === "POST") {
        const message = await request.arrayBuffer();
        if (message.byteLength > MESSAGE_MAX) return refused(`expected at most ${MESSAGE_MAX} bytes`);
        return new Response(await crypto.subtle.sign(ALGORITHM, keys.privateKey, message));
      }
      return new Response("not found\n", { status: 404 });
    },
  };
}

function refused(reason: string): Response {
  return new Response(`${reason}\n`, { status: 400 });
}
