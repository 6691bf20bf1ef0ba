/** The parent's end of the control channel (format/control.ts). What arrives is the enclave's, and so not trusted. */
import {
  type EnclaveMessage,
  encodeMessage,
  MessageDecoder,
  type ParentMessage,
  readEnclaveMessage,
} from "../format/control.ts";
import { CloisterError } from "../format/errors.ts";
import type { VsockStream } from "./device.ts";

export interface ControlChannel {
  send(message: ParentMessage): void;
  /** Send, unless the enclave has not read what it was sent before: else it could ask until memory is full. */
  answer(message: ParentMessage): void;
  /** Settles when no message can come any more. */
  readonly closed: Promise<void>;
  close(): void;
}

/**
 * Speak on an accepted control connection. `onMessage` gets each message; `onFault` gets the reason when the enclave
 * breaks the protocol, after which the channel is closed. Memory is bounded by one line.
 */
export function openControl(
  stream: VsockStream,
  onMessage: (message: EnclaveMessage) => void,
  onFault: (reason: string) => void,
): ControlChannel {
  const send = (message: ParentMessage) => {
    if (stream.writable) stream.write(encodeMessage(message));
  };
  const decoder = new MessageDecoder(readEnclaveMessage, onMessage);
  stream.on("data", (chunk: Buffer) => {
    try {
      decoder.push(chunk);
    } catch (error) {
      if (!(error instanceof CloisterError)) throw error;
      stream.destroy();
      onFault(error.message);
    }
  });
  stream.once("end", () => stream.end());
  const { promise: closed, resolve } = Promise.withResolvers<void>();
  stream.once("close", () => resolve());
  const answer = (message: ParentMessage) => {
    if (!stream.writableNeedDrain) send(message);
  };
  return { send, answer, closed, close: () => stream.destroy() };
}
