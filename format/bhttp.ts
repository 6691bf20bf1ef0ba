/**
 * Binary HTTP: requests and responses as one run of bytes each. Source: RFC 9292 §3.1, §3.3 to §3.8. Known-length
 * messages only, since what is encrypted is whole; no informational responses are written, and what is read of them and
 * of trailers is dropped, as fetch does.
 */
import { type CloisterError, mismatch } from "./failure.ts";
import { concat } from "./struct.ts";

/** Framing indicators, RFC 9292 §3.3. */
const REQUEST = 0;
const RESPONSE = 1;
/** Ours: of one message. */
const FIELDS_MAX = 256;

/** Name and value, in order; names in lower case, values in bytes as ISO 8859-1 has them: what `Headers` takes. */
export type Fields = readonly (readonly [name: string, value: string])[];

export interface BinaryRequest {
  readonly method: string;
  readonly scheme: string;
  /** Host and port. */
  readonly authority: string;
  /** With its query. */
  readonly path: string;
  readonly fields: Fields;
  readonly content: Uint8Array;
}

export interface BinaryResponse {
  /** 200 to 599. */
  readonly status: number;
  readonly fields: Fields;
  readonly content: Uint8Array;
}

export function encodeBinaryRequest(request: BinaryRequest): Uint8Array {
  const { method, scheme, authority, path, fields, content } = request;
  const control = [method, scheme, authority, path].flatMap((text) => sized(encodeLatin1(text)));
  return concat([encodeVarint(REQUEST), ...control, ...encodeFields(fields), ...sized(content)]);
}

export function encodeBinaryResponse({ status, fields, content }: BinaryResponse): Uint8Array {
  return concat([encodeVarint(RESPONSE), encodeVarint(status), ...encodeFields(fields), ...sized(content)]);
}

/** Throws E_MESSAGE. `content` is a view of the input. Nothing of method, authority or path is judged. */
export function decodeBinaryRequest(bytes: Uint8Array): BinaryRequest {
  const reader = new Reader(bytes);
  reader.framing(REQUEST);
  const control = {
    method: reader.text("method"),
    scheme: reader.text("scheme"),
    authority: reader.text("authority"),
    path: reader.text("path"),
  };
  return { ...control, ...reader.rest() };
}

/** Throws E_MESSAGE. `content` is a view of the input. */
export function decodeBinaryResponse(bytes: Uint8Array): BinaryResponse {
  const reader = new Reader(bytes);
  reader.framing(RESPONSE);
  for (let informational = 0; ; informational++) {
    const status = reader.varint("status");
    if (status >= 200 && status <= 599) return { status, ...reader.rest() };
    if (status < 100 || status > 599) throw wrong("status", status, "100 to 599");
    if (informational === FIELDS_MAX) throw wrong("informational responses", "more", `${FIELDS_MAX} at most`);
    reader.fields();
  }
}

/** RFC 9000 §16: the two highest bits say how many bytes there are, 1, 2, 4 or 8. */
export function encodeVarint(value: number): Uint8Array {
  const size = value < 1 << 6 ? 1 : value < 1 << 14 ? 2 : value < 1 << 30 ? 4 : 8;
  const bytes = new Uint8Array(size);
  for (let rest = value, i = size - 1; i >= 0; i--, rest = Math.floor(rest / 256)) bytes[i] = rest % 256;
  bytes[0] = (bytes[0] as number) | (Math.log2(size) << 6);
  return bytes;
}

function sized(bytes: Uint8Array): Uint8Array[] {
  return [encodeVarint(bytes.length), bytes];
}

function encodeFields(fields: Fields): Uint8Array[] {
  return sized(concat(fields.flat().flatMap((text) => sized(encodeLatin1(text)))));
}

/** Throws RangeError for characters that HTTP cannot carry: fetch's own types let none through. */
function encodeLatin1(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => {
    const code = character.charCodeAt(0);
    if (code < 256 && character.length === 1) return code;
    throw new RangeError(`got the character ${JSON.stringify(character)}, expected ISO 8859-1`);
  });
}

class Reader {
  readonly #bytes: Uint8Array;
  #offset = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  framing(expected: number): void {
    const indicator = this.varint("framing indicator");
    if (indicator !== expected) throw wrong("framing indicator", indicator, `${expected}`);
  }

  varint(what: string): number {
    const first = this.#bytes[this.#offset];
    if (first === undefined) throw wrong(what, "the end", "a number");
    const size = 1 << (first >> 6);
    const digits = this.#take(size, what);
    // More than a message can hold in any case; beyond 2^53 rounding only makes it larger still.
    return digits.reduce((sum, digit, i) => sum * 256 + (i === 0 ? digit & 0x3f : digit), 0);
  }

  text(what: string): string {
    return decodeLatin1(this.sized(what));
  }

  sized(what: string): Uint8Array {
    return this.#take(this.varint(what), what);
  }

  /** RFC 9292 §3.8: sections at the end that are empty may be left out. */
  fields(): Fields {
    const section = new Reader(this.#atEnd ? new Uint8Array(0) : this.sized("field section"));
    const fields: [string, string][] = [];
    while (!section.#atEnd) {
      if (fields.length === FIELDS_MAX) throw wrong("fields", "more", `${FIELDS_MAX} at most`);
      fields.push([section.text("field name"), section.text("field value")]);
    }
    return fields;
  }

  /** Fields and content; trailers and padding are checked, and dropped. */
  rest(): { readonly fields: Fields; readonly content: Uint8Array } {
    const fields = this.fields();
    const content = this.#atEnd ? new Uint8Array(0) : this.sized("content");
    this.fields();
    const padding = this.#bytes.subarray(this.#offset);
    if (padding.some((byte) => byte !== 0)) throw wrong("padding", "other bytes", "zeros");
    return { fields, content };
  }

  get #atEnd(): boolean {
    return this.#offset === this.#bytes.length;
  }

  #take(length: number, what: string): Uint8Array {
    const left = this.#bytes.length - this.#offset;
    if (length > left) throw wrong(what, `${left} bytes`, `${length}`);
    this.#offset += length;
    return this.#bytes.subarray(this.#offset - length, this.#offset);
  }
}

/** In pieces: a function takes only so many arguments. */
function decodeLatin1(bytes: Uint8Array): string {
  let text = "";
  for (let i = 0; i < bytes.length; i += 4096) text += String.fromCharCode(...bytes.subarray(i, i + 4096));
  return text;
}

function wrong(where: string, got: string | number, expected: string): CloisterError {
  return mismatch("E_MESSAGE", `binary HTTP: ${where}`, got, expected);
}
