/** The entry module: TCP port 8080 is reachable on vsock port 8080. */
import { app } from "./app.ts";

const server = app.listen(8080, () => console.log("listening on port 8080"));

// Answer what has begun, then end with status 0.
process.on("SIGTERM", () => server.close());
