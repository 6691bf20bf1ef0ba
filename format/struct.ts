/**
 * A wire struct is declared once, as a literal of field widths in wire order; offsets follow from it.
 */

/** Offset of every field, bytes from the start of the struct. Throws if the widths do not add up to `size`. */
export function offsets<const F extends Readonly<Record<string, number>>>(
  name: string,
  fields: F,
  size: number,
): { readonly [K in keyof F]: number } {
  let offset = 0;
  const result: Record<string, number> = {};
  for (const [field, width] of Object.entries(fields)) {
    result[field] = offset;
    offset += width;
  }
  if (offset !== size) throw new Error(`BUG: ${name}: got ${offset} bytes, want ${size}`);
  return result as { readonly [K in keyof F]: number };
}

/** A DataView of exactly these bytes, wherever they lie in their buffer. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Copy the pieces into one array. */
export function concat(pieces: Iterable<Uint8Array>): Uint8Array {
  const list = [...pieces];
  const whole = new Uint8Array(list.reduce((sum, piece) => sum + piece.length, 0));
  let offset = 0;
  for (const piece of list) {
    whole.set(piece, offset);
    offset += piece.length;
  }
  return whole;
}

const DIGITS = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

/** Lower-case hexadecimal, two digits a byte. */
export function toHex(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += DIGITS[byte];
  return text;
}
