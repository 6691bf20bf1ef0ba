/** Guest memory as the vhost-user front-end shares it: VHOST_USER_SET_MEM_TABLE (vhost-user.rst, "Memory access"). */
import { fstatSync } from "node:fs";
import { type Mapping, mapShared } from "../../linux/memory.ts";

/** What the guest or the front-end got wrong at ring level: the device must stop, the process must not. */
export class QueueFault extends Error {
  constructor(message: string) {
    super(message);
    this.name = "QueueFault";
  }
}

export interface RegionLayout {
  /** Guest physical address of the first byte. */
  readonly guestAddress: number;
  /** The same byte's address in the front-end's own address space: ring addresses are told in these. */
  readonly userAddress: number;
  readonly size: number;
  /** Where the region starts in its file, bytes. */
  readonly fileOffset: number;
}

export interface Region extends RegionLayout {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;
  /** Offset of `guestAddress` in `bytes`. */
  readonly start: number;
}

/** Pieces of guest memory that follow one another in a packet. Reused from packet to packet: the arrays only grow. */
export class Segments {
  readonly regions: Region[] = [];
  /** Offsets into `regions[i].bytes`. */
  readonly offsets: number[] = [];
  readonly lengths: number[] = [];
  count = 0;
  /** Sum of the lengths. */
  total = 0;

  clear(): void {
    this.count = 0;
    this.total = 0;
  }

  add(region: Region, offset: number, length: number): void {
    this.regions[this.count] = region;
    this.offsets[this.count] = offset;
    this.lengths[this.count] = length;
    this.count++;
    this.total += length;
  }

  /** Copy `length` bytes from position `from` of the pieces into `target` at `at`. */
  read(from: number, target: Uint8Array, at: number, length: number): void {
    this.#each(from, length, (region, offset, done, bytes) => {
      target.set(region.bytes.subarray(offset, offset + bytes), at + done);
    });
  }

  /** Copy `length` bytes of `source` from `at` into the pieces at position `to`. */
  write(to: number, source: Uint8Array, at: number, length: number): void {
    this.#each(to, length, (region, offset, done, bytes) => {
      region.bytes.set(source.subarray(at + done, at + done + bytes), offset);
    });
  }

  #each(
    position: number,
    length: number,
    visit: (region: Region, offset: number, done: number, bytes: number) => void,
  ): void {
    if (position + length > this.total) {
      throw new RangeError(`BUG: bytes ${position}+${length} of a chain of ${this.total}`);
    }
    let skip = position;
    let done = 0;
    for (let i = 0; done < length; i++) {
      const region = this.regions[i] as Region;
      const available = (this.lengths[i] as number) - skip;
      if (available > 0) {
        const bytes = Math.min(available, length - done);
        visit(region, (this.offsets[i] as number) + skip, done, bytes);
        done += bytes;
      }
      skip = Math.max(0, -available);
    }
  }
}

export class GuestMemory {
  readonly #regions: Region[] = [];
  readonly #mappings: Mapping[] = [];
  /** Where the last address was found: rings and buffers keep to one region. */
  #recent: Region | undefined;

  /** Map every region; `descriptors[i]` is the file of `layout[i]` and stays the caller's. */
  constructor(layout: readonly RegionLayout[], descriptors: readonly number[]) {
    try {
      for (const [i, region] of layout.entries()) this.#map(region, descriptors[i] ?? -1);
    } catch (error) {
      this.unmap();
      throw error;
    }
  }

  #map(layout: RegionLayout, fd: number): void {
    const end = layout.fileOffset + layout.size;
    // Touching a page behind a file's end is SIGBUS (mmap(2)).
    const { size } = fstatSync(fd);
    if (end > size)
      throw new QueueFault(`memory region of ${layout.size} bytes at ${layout.fileOffset} of ${size}`);
    // From the file's start: mmap(2) wants an offset that is a multiple of the file's page size, 2 MiB with huge pages.
    const mapping = mapShared(fd, end);
    this.#mappings.push(mapping);
    const { bytes } = mapping;
    const view = new DataView(bytes.buffer);
    this.#regions.push({ ...layout, bytes, view, start: layout.fileOffset });
  }

  unmap(): void {
    for (const mapping of this.#mappings) mapping.unmap();
    this.#mappings.length = 0;
    this.#regions.length = 0;
    this.#recent = undefined;
  }

  /** Append guest memory `[address, address + length)` to `segments`. Throws QueueFault where it is not all memory. */
  append(segments: Segments, address: number, length: number): void {
    let left = length;
    let at = address;
    while (left > 0) {
      const region = this.#find(at);
      if (region === undefined) {
        throw new QueueFault(
          `${length} bytes at guest address 0x${address.toString(16)}: no memory at 0x${at.toString(16)}`,
        );
      }
      const offset = at - region.guestAddress;
      const bytes = Math.min(left, region.size - offset);
      segments.add(region, region.start + offset, bytes);
      at += bytes;
      left -= bytes;
    }
  }

  #find(address: number): Region | undefined {
    const recent = this.#recent;
    if (
      recent !== undefined &&
      address >= recent.guestAddress &&
      address < recent.guestAddress + recent.size
    ) {
      return recent;
    }
    const found = this.#regions.find(
      ({ guestAddress, size }) => address >= guestAddress && address < guestAddress + size,
    );
    if (found !== undefined) this.#recent = found;
    return found;
  }

  /** Region and offset of `length` bytes at an address of the front-end. Throws QueueFault where they are not in one region. */
  locateUser(address: number, length: number): { readonly region: Region; readonly offset: number } {
    const region = this.#regions.find(
      ({ userAddress, size }) => address >= userAddress && address + length <= userAddress + size,
    );
    if (region === undefined) {
      throw new QueueFault(
        `${length} bytes at front-end address 0x${address.toString(16)}: not in one memory region`,
      );
    }
    return { region, offset: region.start + address - region.userAddress };
  }
}
