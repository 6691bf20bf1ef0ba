/** Tokens signed by a key that only this process has. */
import { createHash, timingSafeEqual } from "node:crypto";
import { calculateJwkThumbprint, exportJWK, generateKeyPair, SignJWT } from "jose";

export interface IssuerOptions {
  readonly issuer: string;
  readonly audience: string;
  /** SHA-256, hexadecimal, of each client's secret, by client. */
  readonly clients: ReadonlyMap<string, string>;
  /** Seconds that a token is good for. */
  readonly lifetime: number;
}

export type Issuer = Awaited<ReturnType<typeof createIssuer>>;

/** With a fresh P-256 key, which cannot be exported. */
export async function createIssuer({ issuer, audience, clients, lifetime }: IssuerOptions) {
  const { publicKey, privateKey } = await generateKeyPair("ES256");
  const jwk = await exportJWK(publicKey);
  const kid = await calculateJwkThumbprint(jwk);
  return {
    /** JWK set (RFC 7517). */
    keys: { keys: [{ ...jwk, kid, alg: "ES256", use: "sig" }] },

    /** Undefined for a client or secret that is not known. */
    async issue(client: string, secret: string): Promise<string | undefined> {
      const expected = Buffer.from(clients.get(client) ?? "", "hex");
      const given = createHash("sha256").update(secret).digest();
      if (expected.length !== given.length || !timingSafeEqual(expected, given)) return undefined;
      return new SignJWT()
        .setProtectedHeader({ alg: "ES256", kid })
        .setIssuer(issuer)
        .setAudience(audience)
        .setSubject(client)
        .setIssuedAt()
        .setExpirationTime(`${lifetime}s`)
        .sign(privateKey);
    },
  };
}
