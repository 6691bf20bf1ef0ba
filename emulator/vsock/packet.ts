/** The socket device's packets: virtio 1.2, 5.10.6 "Device Operation"; struct virtio_vsock_hdr of linux/virtio_vsock.h. */

export const TYPE_STREAM = 1;

/** 5.10.6: enum of operations. */
export const OP_REQUEST = 1;
export const OP_RESPONSE = 2;
export const OP_RST = 3;
export const OP_SHUTDOWN = 4;
export const OP_RW = 5;
export const OP_CREDIT_UPDATE = 6;
export const OP_CREDIT_REQUEST = 7;

/** 5.10.6.5, flags of SHUTDOWN: the sender will receive no more, will send no more. */
export const SHUTDOWN_RECEIVE = 1;
export const SHUTDOWN_SEND = 2;

/** Offsets of the packed little-endian header. */
const FIELD = {
  srcCid: 0, // u64, upper half reserved and zero (5.10.4)
  dstCid: 8, // u64, likewise
  srcPort: 16, // u32
  dstPort: 20, // u32
  length: 24, // u32, bytes of payload after the header
  type: 28, // u16
  op: 30, // u16
  flags: 32, // u32
  bufferSize: 36, // u32 buf_alloc: the sender's receive buffer, bytes
  forwarded: 40, // u32 fwd_cnt: bytes the sender has taken out of it so far, modulo 2^32
} as const;
export const HEADER_BYTES = 44;

/** One header, reused from packet to packet. CIDs whose reserved half is not zero read as Infinity. */
export interface PacketHeader {
  srcCid: number;
  dstCid: number;
  srcPort: number;
  dstPort: number;
  length: number;
  type: number;
  op: number;
  flags: number;
  bufferSize: number;
  forwarded: number;
}

export function emptyHeader(): PacketHeader {
  return {
    srcCid: 0,
    dstCid: 0,
    srcPort: 0,
    dstPort: 0,
    length: 0,
    type: TYPE_STREAM,
    op: 0,
    flags: 0,
    bufferSize: 0,
    forwarded: 0,
  };
}

/** Read a header; each field is read once, since the guest may change it meanwhile. */
export function readHeader(view: DataView, offset: number, header: PacketHeader): void {
  header.srcCid = readCid(view, offset + FIELD.srcCid);
  header.dstCid = readCid(view, offset + FIELD.dstCid);
  header.srcPort = view.getUint32(offset + FIELD.srcPort, true);
  header.dstPort = view.getUint32(offset + FIELD.dstPort, true);
  header.length = view.getUint32(offset + FIELD.length, true);
  header.type = view.getUint16(offset + FIELD.type, true);
  header.op = view.getUint16(offset + FIELD.op, true);
  header.flags = view.getUint32(offset + FIELD.flags, true);
  header.bufferSize = view.getUint32(offset + FIELD.bufferSize, true);
  header.forwarded = view.getUint32(offset + FIELD.forwarded, true);
}

function readCid(view: DataView, offset: number): number {
  const cid = view.getUint32(offset, true);
  return view.getUint32(offset + 4, true) === 0 ? cid : Number.POSITIVE_INFINITY;
}

export function writeHeader(view: DataView, offset: number, header: Readonly<PacketHeader>): void {
  view.setUint32(offset + FIELD.srcCid, header.srcCid, true);
  view.setUint32(offset + FIELD.srcCid + 4, 0, true);
  view.setUint32(offset + FIELD.dstCid, header.dstCid, true);
  view.setUint32(offset + FIELD.dstCid + 4, 0, true);
  view.setUint32(offset + FIELD.srcPort, header.srcPort, true);
  view.setUint32(offset + FIELD.dstPort, header.dstPort, true);
  view.setUint32(offset + FIELD.length, header.length, true);
  view.setUint16(offset + FIELD.type, header.type, true);
  view.setUint16(offset + FIELD.op, header.op, true);
  view.setUint32(offset + FIELD.flags, header.flags, true);
  view.setUint32(offset + FIELD.bufferSize, header.bufferSize, true);
  view.setUint32(offset + FIELD.forwarded, header.forwarded, true);
}
