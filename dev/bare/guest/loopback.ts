/**
 * The loopback of a bare enclave. Its servers listen on ports of the host's loopback that are free, whichever ports and
 * addresses they ask for, so that two enclaves never meet; its clients find them by the ports that were asked for, and
 * nothing of the host's. The ports of all threads and child processes are files in the enclave's folder.
 */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { type Address, binding, type TcpHandle } from "../../../runtime/binding.ts";
import { serverFile } from "../folder.ts";

const LOOPBACK = "127.0.0.1";
const { EADDRINUSE, ECONNREFUSED } = constants.errno;

type Bind = (this: TcpHandle, address: string, port: number, flags?: number) => number;
type Prototype = TcpHandle & { bind: Bind; bind6: Bind };

/** A TCP handle's own connect, before anything was replaced. */
export const connectHandle = binding("tcp_wrap").TCP.prototype.connect;

/** From here on, in this thread; before the outbound network is routed. */
export function routeLoopback(folder: string): void {
  const prototype = binding("tcp_wrap").TCP.prototype as Prototype;
  const { bind, getsockname } = prototype;
  for (const method of ["bind", "bind6"] as const) {
    prototype[method] = function (address, port) {
      const status = bind.call(this, LOOPBACK, 0);
      if (status !== 0) return status;
      const bound: Partial<Address> = {};
      getsockname.call(this, bound);
      const shown = port === 0 ? Number(bound.port) : port;
      return claim(this, serverFile(folder, shown), Number(bound.port), { address, port: shown });
    };
  }
  for (const method of ["connect", "connect6"] as const) {
    prototype[method] = function (request, address, port) {
      const real = realPort(serverFile(folder, port));
      if (real === undefined) {
        process.nextTick(() => request.oncomplete?.(-ECONNREFUSED, this, request, false, false));
        return 0;
      }
      this.getpeername = (into) => answer(into, { address, port });
      return connectHandle.call(this, request, LOOPBACK, real);
    };
  }
}

type Place = Pick<Address, "address" | "port">;

function claim(handle: TcpHandle, file: string, real: number, shown: Place): number {
  try {
    writeFileSync(file, String(real), { flag: "wx" });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    return -EADDRINUSE;
  }
  handle.getsockname = (into) => answer(into, shown);
  const { close } = handle;
  handle.close = (callback) => {
    rmSync(file, { force: true });
    close.call(handle, callback);
  };
  return 0;
}

function realPort(file: string): number | undefined {
  try {
    return Number(readFileSync(file, "utf8"));
  } catch (error) {
    // Nobody listens there.
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/** As libuv's: 0 is success. */
export function answer(into: Partial<Address>, { address, port }: Place): 0 {
  Object.assign(into, { address, port, family: address.includes(":") ? "IPv6" : "IPv4" });
  return 0;
}
