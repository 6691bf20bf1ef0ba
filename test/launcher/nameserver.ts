/** A DNS server on a UDP port of this machine, with the answers that a test gives it (RFC 1035 §4). */
import { createSocket } from "node:dgram";
import { once } from "node:events";

/** Resource data by type number; undefined: NXDOMAIN; "silence": no answer at all. */
export type Zone = (
  name: string,
  type: number,
) => readonly { readonly type: number; readonly data: Uint8Array }[] | "silence" | undefined;

export interface NameServer {
  /** For dns.Resolver.setServers. */
  readonly address: string;
  /** Questions so far. */
  readonly asked: readonly string[];
  close(): void;
}

const HEADER_SIZE = 12;
const FLAGS_ANSWER = 0x8580; // response, authoritative, recursion desired and available
const RCODE_NXDOMAIN = 3;
const CLASS_IN = 1;
const TTL = 60;

/** Labels with their lengths, and a zero. */
export function domain(name: string): Buffer {
  const labels = name === "" ? [] : name.split(".");
  return Buffer.concat([
    ...labels.map((label) => Buffer.from([label.length, ...Buffer.from(label)])),
    Buffer.of(0),
  ]);
}

/** A character string: its length and itself. */
export function text(value: string): Buffer {
  return Buffer.from([value.length, ...Buffer.from(value)]);
}

export function u16(...values: number[]): Buffer {
  return Buffer.concat(values.map((value) => Buffer.of(value >> 8, value & 255)));
}

export function u32(...values: number[]): Buffer {
  return Buffer.concat(values.map((value) => u16(value >>> 16, value & 0xffff)));
}

function readName(message: Buffer, offset: number): { readonly name: string; readonly end: number } {
  const labels: string[] = [];
  let at = offset;
  for (let length = message[at] ?? 0; length > 0; length = message[at] ?? 0) {
    labels.push(message.toString("latin1", at + 1, at + 1 + length));
    at += 1 + length;
  }
  return { name: labels.join("."), end: at + 1 };
}

export async function startNameServer(zone: Zone): Promise<NameServer> {
  const socket = createSocket("udp4");
  const asked: string[] = [];
  socket.on("message", (message, peer) => {
    const { name, end } = readName(message, HEADER_SIZE);
    const type = message.readUInt16BE(end);
    asked.push(`${name} ${type}`);
    const answers = zone(name.toLowerCase(), type);
    if (answers === "silence") return;
    const flags = FLAGS_ANSWER | (answers === undefined ? RCODE_NXDOMAIN : 0);
    const records = (answers ?? []).map((answer) =>
      Buffer.concat([
        u16(0xc000 | HEADER_SIZE, answer.type, CLASS_IN),
        u32(TTL),
        u16(answer.data.length),
        answer.data,
      ]),
    );
    const header = Buffer.concat([message.subarray(0, 2), u16(flags, 1, records.length, 0, 0)]);
    socket.send(
      Buffer.concat([header, message.subarray(HEADER_SIZE, end + 4), ...records]),
      peer.port,
      peer.address,
    );
  });
  socket.bind(0, "127.0.0.1");
  await once(socket, "listening");
  const { address, port } = socket.address();
  return { address: `${address}:${port}`, asked, close: () => socket.close() };
}
