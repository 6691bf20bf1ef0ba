/** The smallest enclave app: one fetch handler, as Workers, Deno, Bun and Hono have it. */
export default {
  fetch(request: Request): Response {
    const name = new URL(request.url).searchParams.get("name") ?? "world";
    return Response.json({ hello: name, from: "an enclave", uptimeSeconds: Math.round(process.uptime()) });
  },
};
