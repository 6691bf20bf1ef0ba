/** The run directory: which one, and whose. */
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { CloisterError } from "../../format/errors.ts";
import { chooseRunDirectory, openRunDirectory } from "../../launcher/directory.ts";
import { identify, isAlive } from "../../launcher/identity.ts";

const folder = mkdtempSync(join(tmpdir(), "cloister-directory-"));
afterAll(() => rmSync(folder, { recursive: true }));
const uid = process.getuid?.() ?? 0;
const isRoot = uid === 0;

function open(path: string): string {
  return openRunDirectory({ CLOISTER_RUN_DIR: path });
}

function withMode(mode: number): (path: string) => void {
  return (path) => {
    mkdirSync(path);
    // mkdir obeys the umask.
    chmodSync(path, mode);
  };
}

test("named, the session's, root's, a temporary one: in that order", () => {
  const session = { XDG_RUNTIME_DIR: folder };
  expect(chooseRunDirectory({ ...session, CLOISTER_RUN_DIR: "/x" }, uid)).toBe("/x");
  expect(chooseRunDirectory(session, uid)).toBe(join(folder, "cloister"));
  // After `su` the session is another user's.
  expect(chooseRunDirectory(session, 4711)).toBe(join(tmpdir(), "cloister-4711"));
  expect(chooseRunDirectory({ XDG_RUNTIME_DIR: "/nowhere" }, 0)).toBe("/run/cloister");
  expect(chooseRunDirectory({ CLOISTER_RUN_DIR: "" }, 4711)).toBe(join(tmpdir(), "cloister-4711"));
});

test("it is made private, and found again", () => {
  const path = join(folder, "new/run");
  expect(open(path)).toBe(path);
  expect(statSync(path).mode & 0o777).toBe(0o700);
  expect(open(path)).toBe(path);
});

test.each<[name: string, make: (path: string) => void, message: RegExp]>([
  ["a file", (path) => writeFileSync(path, ""), /EEXIST/],
  ["a link", (path) => symlinkSync("/tmp", path), /got no directory, expected one/],
  ["open to the group", withMode(0o750), /got mode 750, expected 700/],
  ["open to all", withMode(0o701), /got mode 701, expected 700/],
])("%s is refused", (name, make, message) => {
  const path = join(folder, name);
  make(path);
  expect(() => open(path)).toThrow(message);
  expect(() => open(path)).toThrow(CloisterError);
});

test.runIf(isRoot)("another user's is refused", () => {
  const path = join(folder, "another");
  mkdirSync(path, { mode: 0o700 });
  chownSync(path, 65534, 65534);
  expect(() => open(path)).toThrow(/got user 65534's directory, expected user 0's/);
});

test("a process is its pid, start time and boot", () => {
  const own = identify(process.pid);
  if (own === undefined) throw new Error("this process is not there");
  expect(own.startTime).toMatch(/^\d+$/);
  expect(isAlive(own)).toBe(true);
  expect(isAlive({ ...own, startTime: "1" })).toBe(false);
  expect(isAlive({ ...own, bootId: "another" })).toBe(false);
  expect(identify(2 ** 22 + 1)).toBeUndefined();
});
