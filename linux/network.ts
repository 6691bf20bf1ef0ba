/** Network interfaces (netdevice(7)) and the host name. */
import { constants } from "node:os";
import { closeDescriptor } from "./descriptor.ts";
import { bind, check, errno, SystemError } from "./ffi.ts";

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
/** linux/sockios.h */
const SIOCSIFFLAGS = 0x8914n;
const SIOCSIFADDR = 0x8916n;
const SIOCSIFNETMASK = 0x891cn;
const SIOCGIFINDEX = 0x8933n;
/** linux/if.h */
const IFF_UP = 0x1;
const IFF_RUNNING = 0x40;
const IFNAMSIZ = 16;
const IFREQ_BYTES = 40;

const libc = bind({
  socket: { arguments: ["i32", "i32", "i32"], return: "i32" },
  ioctl: { arguments: ["i32", "u64", "buffer"], return: "i32" },
  sethostname: { arguments: ["string", "u64"], return: "i32" },
});

/** Give an interface an IPv4 address and mask, and bring it up. Throws SystemError (ENODEV: no such interface). */
export function configureIpv4(name: string, address: Quad, mask: Quad): void {
  withSocket(AF_INET, (fd) => {
    control(fd, SIOCSIFADDR, "SIOCSIFADDR", inetRequest(name, address));
    control(fd, SIOCSIFNETMASK, "SIOCSIFNETMASK", inetRequest(name, mask));
    const request = interfaceRequest(name);
    request.setInt16(IFNAMSIZ, IFF_UP | IFF_RUNNING, true);
    control(fd, SIOCSIFFLAGS, "SIOCSIFFLAGS", request);
  });
}

/** Give an interface ::1/128. Throws SystemError (EAFNOSUPPORT: no IPv6 in this kernel). */
export function configureIpv6Loopback(name: string): void {
  withSocket(AF_INET6, (fd) => {
    const request = interfaceRequest(name);
    control(fd, SIOCGIFINDEX, "SIOCGIFINDEX", request);
    // struct in6_ifreq: 16 bytes of address, u32 prefix length, i32 interface index.
    const address = new DataView(new ArrayBuffer(24));
    address.setUint8(15, 1);
    address.setUint32(16, 128, true);
    address.setInt32(20, request.getInt32(IFNAMSIZ, true), true);
    // The kernel adds ::1 by itself when the loopback comes up: then it is there already.
    if (libc.ioctl(fd, SIOCSIFADDR, address) < 0 && errno() !== constants.errno.EEXIST) {
      throw new SystemError("ioctl", errno(), "SIOCSIFADDR ::1");
    }
  });
}

export type Quad = readonly [number, number, number, number];

/** struct ifreq (netdevice(7)): 16 bytes of name, then a union. */
function interfaceRequest(name: string): DataView {
  const bytes = new Uint8Array(IFREQ_BYTES);
  new TextEncoder().encodeInto(name, bytes.subarray(0, IFNAMSIZ - 1));
  return new DataView(bytes.buffer);
}

/** The union as struct sockaddr_in: u16 family, u16 port, then the address. */
function inetRequest(name: string, address: Quad): DataView {
  const request = interfaceRequest(name);
  request.setUint16(IFNAMSIZ, AF_INET, true);
  address.forEach((byte, index) => {
    request.setUint8(IFNAMSIZ + 4 + index, byte);
  });
  return request;
}

function control(fd: number, number: bigint, name: string, request: DataView): void {
  check(libc.ioctl(fd, number, request), "ioctl", name);
}

function withSocket(family: number, use: (fd: number) => void): void {
  const fd = check(libc.socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
  try {
    use(fd);
  } finally {
    closeDescriptor(fd);
  }
}

/** sethostname(2); at most 64 bytes. */
export function setHostName(name: string): void {
  check(libc.sethostname(name, BigInt(Buffer.byteLength(name))), "sethostname", name);
}
