/** The package ws, which has no types of its own. */
import type { Server } from "node:http";
// @ts-expect-error: no types.
import * as ws from "ws";

interface Peer {
  on(event: "message", listener: (data: Buffer) => void): void;
  send(text: string): void;
}

export const { WebSocketServer } = ws as {
  readonly WebSocketServer: new (options: {
    readonly server: Server;
  }) => { on(event: "connection", listener: (peer: Peer) => void): void };
};
