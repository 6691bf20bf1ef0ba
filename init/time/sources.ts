/** The clocks that are read here; the parent's is asked over the control channel. */
import { decodeCbor } from "../../format/cbor.ts";
import { decodeCoseSign1 } from "../../format/cose.ts";
import { mismatch } from "../../format/failure.ts";
import { decodeNsmResponse, encodeNsmRequest } from "../../format/nsm.ts";
import { openPtp, readPtp } from "../../linux/ptp.ts";
import type { NsmModule } from "../../runtime/module.ts";
import type { Reading } from "./reading.ts";

/** Milliseconds by CLOCK_MONOTONIC_RAW. */
export type RawClock = () => number;

const ATTESTATION = encodeNsmRequest({ type: "Attestation", userData: null, nonce: null, publicKey: null });

/**
 * Have the module make a document and read its time. The hypervisor answers here, by a device that nobody else reaches,
 * so its signature says nothing more. Rejects where the module does not answer, refuses, or answers something else.
 */
export async function readNsmClock(module: NsmModule, rawMs: RawClock): Promise<Reading> {
  const sentMs = rawMs();
  const answer = await module.exchange(ATTESTATION);
  const receivedMs = rawMs();
  const response = decodeNsmResponse(answer);
  if (response.type !== "Attestation") {
    const got = response.type === "Error" ? response.error : response.type;
    throw mismatch("E_NSM", "the NSM's clock", got, "an attestation document");
  }
  const unixMs = timestampOf(response.document);
  // Hardware counts milliseconds; QEMU (hw/virtio/virtio-nsm.c) whole seconds, and says no more within one.
  return { sentMs, receivedMs, unixMs, resolutionMs: unixMs % 1000 === 0 ? 1000 : 1 };
}

function timestampOf(document: Uint8Array): number {
  const payload = decodeCbor(decodeCoseSign1(document).payload);
  const timestamp = payload instanceof Map ? payload.get("timestamp") : undefined;
  if (typeof timestamp === "number") return timestamp;
  throw mismatch("E_NSM", "the NSM's clock: timestamp", typeof timestamp, "milliseconds since 1970");
}

/** Each read is a call into the hypervisor; one that is not interrupted takes microseconds. */
const PTP_READS = 4;

/** How to read the hypervisor's clock; undefined where there is none. The reading throws SystemError. */
export function openPtpClock(rawMs: RawClock): (() => Reading) | undefined {
  const fd = openPtp();
  if (fd === undefined) return undefined;
  return () => shortest(Array.from({ length: PTP_READS }, () => readOnce(rawMs, () => readPtp(fd))));
}

function readOnce(rawMs: RawClock, read: () => number): Reading {
  const sentMs = rawMs();
  const unixMs = read();
  return { sentMs, receivedMs: rawMs(), unixMs, resolutionMs: 0 };
}

export function shortest(readings: readonly Reading[]): Reading {
  const duration = ({ sentMs, receivedMs }: Reading) => receivedMs - sentMs;
  return readings.reduce((best, next) => (duration(next) < duration(best) ? next : best));
}
