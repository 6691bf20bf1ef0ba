/** The handler; server.ts listens. */
import { createServer, type Server } from "node:http";
import { text } from "node:stream/consumers";

export function createApp(): Server {
  return createServer(async (request, response) => {
    if (request.url === "/") {
      response
        .setHeader("content-type", "application/json")
        .end(JSON.stringify({ hello: "from an enclave" }));
    } else if (request.url === "/shout" && request.method === "POST") {
      response.end((await text(request)).toUpperCase());
    } else {
      response.writeHead(404).end("not found\n");
    }
  });
}
