/** Guest half of `../attest.ts`: times calls where they are made. */
import { attest, nsm } from "cloister/runtime";

const CALLS: Readonly<Record<string, () => Promise<unknown>>> = {
  attest: () => attest({ nonce: new Uint8Array(32), publicKey: new Uint8Array(120) }),
  describe: () => nsm.describe(),
};

export default {
  /** Query: `call`, `times`, `at` a time. Milliseconds of each call, and of all. */
  async fetch(request: Request): Promise<Response> {
    const query = new URL(request.url).searchParams;
    const call = CALLS[query.get("call") ?? "attest"];
    if (call === undefined) return new Response("unknown call", { status: 404 });
    let left = Number(query.get("times"));
    const each: number[] = [];
    const loop = async () => {
      while (left-- > 0) {
        const begin = performance.now();
        await call();
        each.push(performance.now() - begin);
      }
    };
    const begin = performance.now();
    await Promise.all(Array.from({ length: Number(query.get("at")) }, loop));
    return Response.json({ each, all: performance.now() - begin });
  },
};
