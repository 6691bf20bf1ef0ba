/**
 * /dev/nitro_enclaves: the ioctls of the Nitro Enclaves driver (linux/uapi/linux/nitro_enclaves.h, Linux 5.10), one
 * function each. All of them throw SystemError; its errno is 256 to 275 for what the driver itself refuses.
 */
import { bind, check } from "./ffi.ts";

const libc = bind({ ioctl: { arguments: ["i32", "u64", "buffer"], return: "i32" } });

export const ENCLAVES_DEVICE = "/dev/nitro_enclaves";

/** _IOR, _IOW, _IOWR of magic 0xAE; the same on x86_64 and aarch64. */
export const NE_IOCTL = {
  NE_CREATE_VM: 0x8008_ae20,
  NE_ADD_VCPU: 0xc004_ae21,
  NE_GET_IMAGE_LOAD_INFO: 0xc010_ae22,
  NE_SET_USER_MEMORY_REGION: 0x4018_ae23,
  NE_START_ENCLAVE: 0xc010_ae24,
} as const;

export type NeIoctl = keyof typeof NE_IOCTL;

/** Structs in wire order: offsets in bytes, every field a u64 of the machine's byte order. */
export const NE_IMAGE_LOAD_INFO = { flags: 0, memoryOffset: 8, size: 16 } as const;
export const NE_USER_MEMORY_REGION = { flags: 0, memorySize: 8, userspaceAddress: 16, size: 24 } as const;
export const NE_START_INFO = { flags: 0, enclaveCid: 8, size: 16 } as const;

/** NE_EIF_IMAGE: the only type of image. */
export const NE_EIF_IMAGE = 1n;
const NE_DEFAULT_MEMORY_REGION = 0n;

function call(fd: number, name: NeIoctl, argument: BigUint64Array | Uint32Array): number {
  return check(libc.ioctl(fd, BigInt(NE_IOCTL[name]), argument), name);
}

/** A new enclave slot: its descriptor (close-on-exec) and its number. */
export function createVm(device: number): { readonly fd: number; readonly slotUid: bigint } {
  const slotUid = new BigUint64Array(1);
  const fd = call(device, "NE_CREATE_VM", slotUid);
  return { fd, slotUid: slotUid[0] ?? 0n };
}

/** Offset of an EIF in enclave memory, bytes. */
export function imageLoadOffset(fd: number): number {
  const info = new BigUint64Array([NE_EIF_IMAGE, 0n]);
  call(fd, "NE_GET_IMAGE_LOAD_INFO", info);
  return Number(info[1]);
}

/** Donate memory of this process. The driver takes hold of every page, so those untouched so far are zeroed now. */
export function setMemoryRegion(fd: number, address: bigint, size: number): void {
  call(
    fd,
    "NE_SET_USER_MEMORY_REGION",
    new BigUint64Array([NE_DEFAULT_MEMORY_REGION, BigInt(size), address]),
  );
}

/** Add a CPU of the pool; 0 lets the driver choose. Returns its id. */
export function addVcpu(fd: number, id: number): number {
  const cpu = new Uint32Array([id]);
  call(fd, "NE_ADD_VCPU", cpu);
  return cpu[0] ?? 0;
}

/** Start; cid 0 lets the hypervisor choose. Returns the CID. Blocks until the hypervisor answers, 120 s at most. */
export function startEnclave(fd: number, flags: number, cid: number): number {
  const info = new BigUint64Array([BigInt(flags), BigInt(cid)]);
  call(fd, "NE_START_ENCLAVE", info);
  return Number(info[1]);
}
