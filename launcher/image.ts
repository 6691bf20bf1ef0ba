/** An EIF as the launcher sees it: where its bytes come from, and what its header asks for. */
import { type FileHandle, open } from "node:fs/promises";
import { basename } from "node:path";
import { SECTION_HEADER_SIZE, SectionType } from "../format/eif.ts";
import { CloisterError } from "../format/errors.ts";
import {
  BUILD_TOOL,
  decodeMetadata,
  type EifMetadata,
  metadataEgress,
  metadataProxyProtocol,
} from "../format/metadata.ts";
import { type ByteReader, bytesReader, type Eif, readEif } from "../format/reader.ts";
import type { MemoryRegion } from "./device.ts";

const CHUNK = 4 << 20;
/** A `docker inspect` of some hundred layers fits. */
const METADATA_MAX = 4 << 20;

export interface Image extends AsyncDisposable {
  /** File name without `.eif`. */
  readonly name: string;
  readonly size: number;
  /** Bytes that the image asks to run in. */
  readonly defaultMemory: bigint;
  readonly defaultCpus: bigint;
  /** It says that cloister built it. */
  readonly isOurs: boolean;
  /** The egress rules that it says it was built with. */
  readonly egress: readonly string[];
  /** It says that its app expects a PROXY protocol header. */
  readonly proxyProtocol: boolean;
  /** Read straight into `target`, as many bytes as it has. Throws E_EIF_TRUNCATED. */
  readInto(target: Uint8Array, offset: number): Promise<void>;
}

/** Open an EIF and read its header. Throws E_EIF_READ or as `readEif`. */
export async function openImage(eif: string | Uint8Array): Promise<Image> {
  const source = typeof eif === "string" ? await openFile(eif) : memorySource(eif);
  try {
    const eif = await readEif(source.reader);
    const { defaultMemory, defaultCpus } = eif.header;
    const metadata = await readMetadata(source.reader, eif);
    const isOurs = metadata?.BuildMetadata.BuildTool === BUILD_TOOL;
    const egress = metadata === undefined ? [] : metadataEgress(metadata);
    const proxyProtocol = metadata !== undefined && metadataProxyProtocol(metadata);
    const { size } = source.reader;
    return { ...source, size, defaultMemory, defaultCpus, isOurs, egress, proxyProtocol };
  } catch (error) {
    await source[Symbol.asyncDispose]();
    throw error;
  }
}

/** Undefined for an image without. It is not measured: nothing in the enclave depends on it. */
async function readMetadata(reader: ByteReader, eif: Eif): Promise<EifMetadata | undefined> {
  const section = eif.sections.find(({ type }) => type === SectionType.Metadata);
  if (section === undefined || section.size > METADATA_MAX) return undefined;
  const data = await reader.read(section.offset + SECTION_HEADER_SIZE, section.size);
  try {
    return decodeMetadata(data);
  } catch (error) {
    // E_EIF_METADATA: the hypervisor does not read it either.
    if (error instanceof CloisterError) return undefined;
    throw error;
  }
}

type Source = Pick<Image, "name" | "readInto"> & AsyncDisposable & { readonly reader: ByteReader };

function memorySource(bytes: Uint8Array): Source {
  return {
    name: "enclave",
    reader: bytesReader(bytes),
    readInto: async (target, offset) => target.set(bytes.subarray(offset, offset + target.length)),
    [Symbol.asyncDispose]: async () => {},
  };
}

async function openFile(path: string): Promise<Source> {
  let handle: FileHandle | undefined;
  try {
    handle = await open(path);
    const { size } = await handle.stat();
    return fileSource(path, handle, size);
  } catch (error) {
    await handle?.close();
    throw unreadable(path, error);
  }
}

function fileSource(path: string, handle: FileHandle, size: number): Source {
  const readInto = async (target: Uint8Array, offset: number) => {
    for (let done = 0; done < target.length; ) {
      const { bytesRead } = await handle
        .read(target, done, target.length - done, offset + done)
        .catch((error: unknown) => Promise.reject(unreadable(path, error)));
      if (bytesRead === 0) {
        const message = `${path}: got ${offset + done} bytes, expected ${size}`;
        throw new CloisterError("E_EIF_TRUNCATED", message);
      }
      done += bytesRead;
    }
  };
  const reader = {
    size,
    async read(offset: number, length: number) {
      const bytes = new Uint8Array(length);
      await readInto(bytes, offset);
      return bytes;
    },
  };
  return { name: basename(path, ".eif"), reader, readInto, [Symbol.asyncDispose]: () => handle.close() };
}

function unreadable(path: string, error: unknown): CloisterError {
  const { code = String(error) } = error as { code?: string };
  return new CloisterError("E_EIF_READ", `${path}: got ${code}, expected a readable file`, { cause: error });
}

/**
 * Copy the image into enclave memory from `loadOffset` on: regions one after the other, one copy, 4 MiB at a time.
 * Throws E_EIF_TRUNCATED, or `signal`'s reason.
 */
export async function copyImage(
  image: Image,
  regions: readonly MemoryRegion[],
  loadOffset: number,
  signal?: AbortSignal,
): Promise<void> {
  let regionStart = 0;
  let done = 0;
  for (const { bytes, size } of regions) {
    while (done < image.size && loadOffset + done < regionStart + size) {
      signal?.throwIfAborted();
      const start = loadOffset + done - regionStart;
      const length = Math.min(CHUNK, image.size - done, size - start);
      await image.readInto(bytes.subarray(start, start + length), done);
      done += length;
    }
    regionStart += size;
  }
}
