/** Huge pages for tests that need real ones: reserved for the whole run where root runs it, given back afterwards. */
import { readFileSync, writeFileSync } from "node:fs";

const RESERVED = "/proc/sys/vm/nr_hugepages";
const FREE = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
/** Pages of 2 MiB: two test files at once, each with an enclave or two. */
const WANTED = 256;

/** Why these tests cannot run here; undefined where `pages` pages of 2 MiB are free. */
export function whyNoPages(pages: number): string | undefined {
  const free = read(FREE);
  return free >= pages ? undefined : `${free} huge pages of 2 MiB are free, the test needs ${pages}`;
}

function read(path: string): number {
  try {
    return Number(readFileSync(path, "utf8"));
  } catch {
    // A kernel without huge pages.
    return 0;
  }
}

function reserve(pages: number): boolean {
  try {
    writeFileSync(RESERVED, String(pages));
    return true;
  } catch {
    // Only root may.
    return false;
  }
}

/** vitest's globalSetup. */
export function setup(): (() => void) | undefined {
  const before = read(RESERVED);
  if (read(FREE) >= WANTED || !reserve(before + WANTED)) return undefined;
  return () => void reserve(before);
}
