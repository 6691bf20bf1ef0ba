import { readFileSync } from "node:fs";
import { CloisterError } from "../../format/errors.ts";

/** A file of test/vectors, as a plain Uint8Array. */
export function vector(path: string): Uint8Array {
  return new Uint8Array(readFileSync(new URL(`../vectors/${path}`, import.meta.url)));
}

/** Lines of a text file of test/vectors. */
export function vectorLines(path: string): string[] {
  return new TextDecoder().decode(vector(path)).trimEnd().split("\n");
}

export function fromHex(hex: string): Uint8Array {
  return Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

export const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

/** "CODE: message" of the CloisterError that `run` throws or rejects with; anything else it throws passes through. */
export function refusal(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof CloisterError) return `${error.code}: ${error.message}`;
    throw error;
  }
  return "nothing thrown";
}

export async function rejection(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    return refusal(() => {
      throw error;
    });
  }
  return "nothing thrown";
}

/** A copy with some bytes replaced. */
export function patched(bytes: Uint8Array, offset: number, ...values: number[]): Uint8Array {
  const copy = bytes.slice();
  copy.set(values, offset);
  return copy;
}
