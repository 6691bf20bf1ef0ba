/**
 * What `nitro-cli describe-eif` says of an image, with its keys in its order. Source: nitro-cli
 * `src/common/json_output.rs`, EifDescribeInfo, and image-format `src/utils/eif_reader.rs`, SignCertificateInfo.
 */
import type { Certificate } from "./certificate.ts";
import type { Crc32 } from "./crc.ts";
import { SectionType, sectionName } from "./eif.ts";
import { at, mismatch } from "./errors.ts";
import { isObject, type JsonObject } from "./json.ts";
import { type CreateSha384, createSha384, type Measurements, Measurer, measurePcr8 } from "./measurement.ts";
import { decodeMetadata, type EifMetadata } from "./metadata.ts";
import { type ByteReader, type Eif, eifCrc, readEif, readSection } from "./reader.ts";
import { decodeSignature, SIGNATURE_SECTION_MAX, verifySignature } from "./signature.ts";
import { concat, toHex } from "./struct.ts";

/** Registers in lower-case hexadecimal. */
export interface EifMeasurements {
  /** Differs between releases of nitro-cli: for people, never to be compared. */
  readonly HashAlgorithm: string;
  readonly PCR0: string;
  readonly PCR1: string;
  readonly PCR2: string;
  /** Of signed images. */
  readonly PCR8?: string;
}

export interface EifDescription {
  readonly EifVersion: number;
  readonly Measurements: EifMeasurements;
  readonly IsSigned: boolean;
  readonly SigningCertificate?: SigningCertificate;
  /** Whether the header's CRC-32 is that of the file. */
  readonly CheckCRC: boolean;
  /** Whether the certificate's key signed this PCR0; neither its issuer nor its dates are looked at. */
  readonly SignatureCheck?: boolean;
  readonly ImageName?: string;
  readonly ImageVersion?: string;
  /** BuildMetadata's keys, DockerInfo, and the keys of a CustomMetadata object. */
  readonly Metadata?: JsonObject;
}

export interface SigningCertificate {
  /** By OpenSSL's long attribute names. */
  readonly IssuerName: Readonly<Record<string, string>>;
  readonly Algorithm: string;
  /** As `Nov 21 02:05:14 2026 GMT`. */
  readonly NotBefore: string;
  readonly NotAfter: string;
  /** Upper-case hexadecimal bytes, joined by colons. */
  readonly Signature: string;
}

export const HASH_ALGORITHM = "Sha384 { ... }";

export interface DescribeOptions {
  readonly createSha384?: CreateSha384;
  readonly crc32?: Crc32;
}

/** No docker inspect, nor nitro-cli's 4 KiB of custom metadata, comes near it. Bytes. */
const METADATA_MAX = 1 << 20;

/**
 * Describe an EIF of version 2 to 4, signed or not, that AWS's own reader would describe. A wrong CRC or signature is
 * told in the result; throws as `readEif`, and E_EIF_METADATA or E_EIF_SIGNATURE.
 */
export async function describeEif(
  reader: ByteReader,
  options: DescribeOptions = {},
): Promise<EifDescription> {
  const eif = await readEif(reader, { lenient: true });
  const { pcr0, pcr1, pcr2 } = await measureEif(reader, eif, options.createSha384);
  const signed = await readWhole(reader, eif, SectionType.Signature, SIGNATURE_SECTION_MAX);
  const metadata = await readWhole(reader, eif, SectionType.Metadata, METADATA_MAX);
  const signature = signed && decodeSignature(signed);
  const certificate = signature?.certificate;
  return {
    EifVersion: eif.header.version,
    Measurements: {
      HashAlgorithm: HASH_ALGORITHM,
      PCR0: toHex(pcr0),
      PCR1: toHex(pcr1),
      PCR2: toHex(pcr2),
      ...(certificate && { PCR8: toHex(measurePcr8(certificate.der, options.createSha384)) }),
    },
    IsSigned: signature !== undefined,
    ...(certificate && { SigningCertificate: describeCertificate(certificate) }),
    CheckCRC: (await eifCrc(reader, eif, options.crc32)) === eif.header.crc,
    ...(signature && { SignatureCheck: await verifySignature(signature, pcr0) }),
    ...(metadata && describeMetadata(decodeMetadata(metadata))),
  };
}

/** PCR0, 1 and 2 of an image that `readEif` has read; 1 MiB of it in memory at a time. */
export async function measureEif(
  reader: ByteReader,
  eif: Eif,
  create: CreateSha384 = createSha384,
): Promise<Measurements> {
  const measurer = new Measurer(create);
  for (const section of eif.sections) {
    measurer.section(section.type);
    if (!Measurer.measures(section.type)) continue;
    for await (const chunk of readSection(reader, section)) measurer.update(chunk);
  }
  return measurer.digest();
}

/** Data of the one section of this type, if there is one. Throws E_EIF_SECTION_SIZE beyond `most` bytes. */
async function readWhole(
  reader: ByteReader,
  eif: Eif,
  type: SectionType,
  most: number,
): Promise<Uint8Array | undefined> {
  const section = eif.sections.find((candidate) => candidate.type === type);
  if (section === undefined) return undefined;
  if (section.size > most) {
    const where = `${at(section.offset)}: ${sectionName(type)} section`;
    throw mismatch("E_EIF_SECTION_SIZE", where, `${section.size} bytes`, `at most ${most}`);
  }
  const chunks: Uint8Array[] = [];
  for await (const chunk of readSection(reader, section)) chunks.push(chunk);
  return concat(chunks);
}

function describeMetadata(
  metadata: EifMetadata,
): Pick<EifDescription, "ImageName" | "ImageVersion" | "Metadata"> {
  const custom = metadata.CustomMetadata;
  // nitro-cli flattens an object and fails on anything else that is not null.
  const flattened: JsonObject = isObject(custom) ? custom : custom === null ? {} : { CustomMetadata: custom };
  return {
    ImageName: metadata.ImageName,
    ImageVersion: metadata.ImageVersion,
    Metadata: { ...metadata.BuildMetadata, DockerInfo: metadata.DockerInfo, ...flattened },
  };
}

function describeCertificate(certificate: Certificate): SigningCertificate {
  const issuer = certificate.issuer.map(({ name, value }): [string, string] => [name, value]);
  return {
    IssuerName: Object.fromEntries(issuer.sort(([a], [b]) => (a < b ? -1 : 1))),
    Algorithm: certificate.signatureAlgorithm,
    NotBefore: formatTime(certificate.notBefore),
    NotAfter: formatTime(certificate.notAfter),
    Signature: [...certificate.signature]
      .map((byte) => byte.toString(16).padStart(2, "0").toUpperCase())
      .join(":"),
  };
}

/** OpenSSL's ASN1_TIME_print: the day has two places, the first one a space if need be. */
function formatTime(unixMs: number): string {
  const [, day = "", month, year, time] = new Date(unixMs).toUTCString().split(" ");
  return `${month} ${day.replace(/^0/, " ")} ${time} ${year} GMT`;
}
