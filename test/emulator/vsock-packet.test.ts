import fc from "fast-check";
import { expect, test } from "vitest";
import {
  emptyHeader,
  HEADER_BYTES,
  type PacketHeader,
  readHeader,
  writeHeader,
} from "../../emulator/vsock/packet.ts";

/** Laid out by hand from virtio 1.2, 5.10.6: struct virtio_vsock_hdr, little-endian, packed. */
const VECTORS: readonly { name: string; header: PacketHeader; hex: string }[] = [
  {
    name: "RW of 5 bytes, guest 16 port 0x12345678 to parent 3 port 9000",
    header: {
      srcCid: 16,
      dstCid: 3,
      srcPort: 0x1234_5678,
      dstPort: 9000,
      length: 5,
      type: 1,
      op: 5,
      flags: 0,
      bufferSize: 262_144,
      forwarded: 0xffff_fffe,
    },
    hex: "1000000000000000 0300000000000000 78563412 28230000 05000000 0100 0500 00000000 00000400 feffffff",
  },
  {
    name: "SHUTDOWN both ways",
    header: { ...emptyHeader(), srcCid: 2, dstCid: 0xffff_ffff, srcPort: 1, dstPort: 2, op: 4, flags: 3 },
    hex: "0200000000000000 ffffffff00000000 01000000 02000000 00000000 0100 0400 03000000 00000000 00000000",
  },
];

function decode(bytes: Uint8Array): PacketHeader {
  const header = emptyHeader();
  readHeader(new DataView(bytes.buffer, bytes.byteOffset), 0, header);
  return header;
}

function encode(header: PacketHeader): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  writeHeader(new DataView(bytes.buffer, bytes.byteOffset), 0, header);
  return bytes;
}

test.each(VECTORS)("$name", ({ header, hex }) => {
  const bytes = Buffer.from(hex.replaceAll(" ", ""), "hex");
  expect(bytes.length).toBe(HEADER_BYTES);
  expect(decode(bytes)).toEqual(header);
  expect(encode(header).toString("hex")).toBe(bytes.toString("hex"));
});

test("a CID with its reserved half set is nobody's", () => {
  const bytes = encode({ ...emptyHeader(), srcCid: 3, dstCid: 3 });
  bytes[4] = 1;
  bytes[15] = 0x80;
  expect(decode(bytes).srcCid).toBe(Number.POSITIVE_INFINITY);
  expect(decode(bytes).dstCid).toBe(Number.POSITIVE_INFINITY);
});

test("every header survives", () => {
  const u16 = fc.nat(0xffff);
  const u32 = fc.nat(0xffff_ffff);
  const headers = fc.record({
    srcCid: u32,
    dstCid: u32,
    srcPort: u32,
    dstPort: u32,
    length: u32,
    type: u16,
    op: u16,
    flags: u32,
    bufferSize: u32,
    forwarded: u32,
  });
  fc.assert(
    fc.property(headers, (header) => {
      expect(decode(encode(header))).toEqual(header);
    }),
  );
});
