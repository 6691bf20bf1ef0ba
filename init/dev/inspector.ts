/** The inspector of the app's Node, which listens on the loopback, on a vsock port. */
import { connect } from "node:net";
import { pipeline } from "node:stream";
import type { VsockSocket } from "../../runtime/vsock.ts";

/** Relay one connection; it is reset where no app runs. */
export async function relayInspector(
  client: VsockSocket,
  find: () => Promise<number | undefined>,
): Promise<void> {
  // Whoever debugs sees the connection end.
  client.on("error", () => {});
  let port: number | undefined;
  try {
    port = await find();
  } catch {
    // The app ended before it said where.
  }
  if (port === undefined) {
    client.destroy();
    return;
  }
  const inspector = connect(port, "127.0.0.1");
  pipeline(client, inspector, () => client.destroy());
  pipeline(inspector, client, () => inspector.destroy());
}
