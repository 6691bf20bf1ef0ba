/** An ordinary Node program, unchanged: it listens on TCP port 3000 and is reached on vsock port 3000. */
import { createServer } from "node:http";

let visits = 0;

const server = createServer((request, response) => {
  response.setHeader("content-type", "application/json");
  response.end(`${JSON.stringify({ path: request.url, visits: ++visits })}\n`);
});

server.listen(3000, () => console.log("listening on port 3000"));

// Answer what has begun, then end with status 0.
process.on("SIGTERM", () => server.close());
