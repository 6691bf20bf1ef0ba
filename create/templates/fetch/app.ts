/** The app. cloister serves it on the first port of cloister.config.ts. */
export default {
  async fetch(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    if (pathname === "/") return Response.json({ hello: "from an enclave" });
    if (pathname === "/shout" && request.method === "POST") {
      return new Response((await request.text()).toUpperCase());
    }
    return new Response("not found\n", { status: 404 });
  },
};
