/** The entry module: TCP port 3000 is reachable on vsock port 3000. */
import { app } from "./app.ts";

const server = app.listen(3000, () => console.log("listening on port 3000"));

// Answer what has begun, then end with status 0.
process.on("SIGTERM", () => server.close());
