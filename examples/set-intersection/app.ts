/** Two parties learn what their sets have in common, and nothing else; nobody else learns anything. */
import { Sessions } from "./sessions.ts";

const sessions = new Sessions({ sessions: 100, elements: 100_000, length: 100 });

export default {
  async fetch(request: Request): Promise<Response> {
    const { pathname, protocol } = new URL(request.url);
    if (protocol !== "https:") return refuse(403, "only attested connections are served");
    const [, id] = /^\/sessions\/([\w-]{1,64})$/.exec(pathname) ?? [];
    if (id === undefined) return refuse(404, "expected /sessions/NAME");
    const [, party] = /^Bearer ([\w-]{22,128})$/.exec(request.headers.get("authorization") ?? "") ?? [];
    if (party === undefined) return refuse(401, "authorization: expected Bearer and 22 or more characters");
    if (request.method === "POST") {
      const reason = sessions.upload(id, party, await request.text());
      return reason === undefined ? new Response(null, { status: 204 }) : refuse(403, reason);
    }
    const common = sessions.intersection(id, party);
    if (common === null) return refuse(404, "no such session of this party");
    return common === undefined ? refuse(409, "the other party's set is missing") : Response.json(common);
  },
};

function refuse(status: number, reason: string): Response {
  return Response.json({ error: reason }, { status });
}
