/** Answers the calls of a command, until none of its processes is left. */

import { CID_PARENT } from "../../format/abi.ts";
import { watchReadable } from "../../linux/event.ts";
import { answerInTurn, pollListener, receiveNotification } from "../../linux/seccomp.ts";
import { Call } from "./call.ts";
import { encodeStat, encodeStatx, type Files } from "./files.ts";
import { IOCTL_VM_SOCKETS_GET_LOCAL_CID, type Syscall } from "./filter.ts";
import type { Slots } from "./slots.ts";
import type { Sockets } from "./sockets.ts";

export interface Parts {
  readonly files: Files;
  readonly slots: Slots;
  readonly sockets: Sockets;
}

type Handler = (call: Call) => void | Promise<void>;

/** One row a system call; arguments count from 0. */
function handlers({ files, slots, sockets }: Parts): Readonly<Record<Syscall, Handler>> {
  return {
    open: (call) => files.open(call, 0, call.word(1)),
    openat: (call) => files.open(call, 1, call.word(2)),
    // struct open_how begins with the flags.
    openat2: (call) =>
      files.open(call, 1, new DataView(call.read(call.word(2), 8).buffer).getBigUint64(0, true)),
    access: (call) => files.access(call, 0),
    faccessat: (call) => files.access(call, 1),
    faccessat2: (call) => files.access(call, 1),
    stat: (call) => files.stat(call, 0, 1, encodeStat),
    lstat: (call) => files.stat(call, 0, 1, encodeStat),
    newfstatat: (call) => files.stat(call, 1, 2, encodeStat),
    statx: (call) => files.stat(call, 1, 4, encodeStatx),
    ioctl: (call) =>
      call.uint(1) === IOCTL_VM_SOCKETS_GET_LOCAL_CID ? localCid(call, files) : slots.ioctl(call),
    socket: (call) => sockets.socket(call),
    bind: (call) => sockets.bind(call),
    listen: (call) => sockets.listen(call),
    accept: (call) => sockets.accept(call, 0),
    accept4: (call) => sockets.accept(call, call.int(3)),
    connect: (call) => sockets.connect(call),
    getsockname: (call) => sockets.getsockname(call),
    getpeername: (call) => sockets.getpeername(call),
    setsockopt: (call) => sockets.setsockopt(call),
    getsockopt: (call) => sockets.getsockopt(call),
  };
}

function localCid(call: Call, files: Files): void {
  const identity = call.identify(0);
  if (identity === undefined || !files.isVsockDevice(identity)) {
    call.proceed();
    return;
  }
  call.write(call.word(2), new Uint8Array(new Uint32Array([CID_PARENT]).buffer));
  call.succeed();
}

/** Answer calls; owns the listener. Settles when no process of the command is left. */
export function supervise(listener: number, parts: Parts): Promise<void> {
  answerInTurn(listener);
  const table = handlers(parts);
  const { promise, resolve } = Promise.withResolvers<void>();
  const watcher = watchReadable(listener, () => {
    const { waiting, ended } = pollListener(listener);
    if (waiting) answerNext(listener, table);
    else if (ended) {
      watcher.close();
      resolve();
    }
  });
  return promise;
}

function answerNext(listener: number, table: Readonly<Record<Syscall, Handler>>): void {
  const notification = receiveNotification(listener);
  if (notification === undefined) return;
  const call = new Call(listener, notification);
  if (call.name === undefined) call.proceed();
  else void answer(call, table[call.name]);
}

async function answer(call: Call, handle: Handler): Promise<void> {
  try {
    await handle(call);
  } catch (error) {
    call.failWith(error);
  }
}
