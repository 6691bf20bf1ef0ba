/** node:fs, /tmp and what is kept in files. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import * as promises from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { pipeline } from "node:stream/promises";
import type { Checks } from "./check.ts";

const MIB = 1024 * 1024;
/** As in compatibility.test.ts. */
const TMP_MIB = 48;

/** A folder of its own for each check. */
async function inFolder<T>(work: (directory: string) => T | Promise<T>): Promise<T> {
  const directory = await promises.mkdtemp(join(tmpdir(), "check-"));
  try {
    return await work(directory);
  } finally {
    await promises.rm(directory, { recursive: true });
  }
}

/** Write until the disk is full; bytes that got there. */
function fill(path: string): number {
  const chunk = Buffer.alloc(MIB, 1);
  const file = fs.openSync(path, "w");
  let written = 0;
  try {
    for (;;) written += fs.writeSync(file, chunk);
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, "ENOSPC");
    return written;
  } finally {
    fs.closeSync(file);
  }
}

export const files: Checks = {
  "fs: files, folders, links, permissions": () =>
    inFolder(async (directory) => {
      const [file, link] = [join(directory, "ä file"), join(directory, "link")];
      await promises.writeFile(file, "one\n");
      await promises.appendFile(file, "two\n");
      await promises.symlink(file, link);
      assert.equal(await promises.readFile(link, "utf8"), "one\ntwo\n");
      await promises.chmod(file, 0o600);
      await promises.utimes(file, 1, 2);
      const { mode, mtimeMs, size } = await promises.stat(file);
      assert.deepEqual([mode & 0o777, mtimeMs, size], [0o600, 2000, 8]);
      await promises.mkdir(join(directory, "a/b"), { recursive: true });
      await promises.cp(file, join(directory, "a/b/copy"));
      await promises.rename(file, join(directory, "a/moved"));
      assert.deepEqual((await promises.readdir(directory, { recursive: true })).sort(), [
        "a",
        "a/b",
        "a/b/copy",
        "a/moved",
        "link",
      ]);
      await promises.truncate(join(directory, "a/moved"), 3);
      assert.equal(fs.readFileSync(join(directory, "a/moved"), "latin1"), "one");
      assert.throws(() => fs.readFileSync(link), { code: "ENOENT" });
    }),
  "fs: streams and file handles": () =>
    inFolder(async (directory) => {
      const [from, to] = [join(directory, "from"), join(directory, "to")];
      await promises.writeFile(from, Buffer.alloc(3 * MIB, "0123456789"));
      await pipeline(fs.createReadStream(from), fs.createWriteStream(to));
      const handle = await promises.open(to);
      const { buffer } = await handle.read(Buffer.alloc(10), 0, 10, MIB * 2);
      assert.equal(buffer.toString(), "2345678901");
      await handle.sync();
      await handle.close();
    }),
  "fs: watch": () =>
    inFolder(async (directory) => {
      const watcher = fs.watch(directory);
      const change = once(watcher, "change");
      fs.writeFileSync(join(directory, "seen"), "");
      assert.equal((await change)[1], "seen");
      watcher.close();
    }),
  "/tmp: as large as configured, ENOSPC beyond it": () =>
    inFolder((directory) => {
      const { blocks, bsize } = fs.statfsSync("/tmp");
      assert.equal(blocks * bsize, TMP_MIB * MIB);
      const path = join(directory, "full");
      const written = fill(path);
      assert.ok(written > (TMP_MIB - 8) * MIB && written <= TMP_MIB * MIB, `${written} bytes`);
      fs.rmSync(path);
      fs.writeFileSync(path, Buffer.alloc(MIB));
    }),
  "/tmp: programs that an app unpacks can run": () =>
    inFolder((directory) => {
      const path = join(directory, "node");
      fs.symlinkSync(process.execPath, path);
      fs.writeFileSync(join(directory, "script"), `#!${path}\nconsole.log("ran")`, { mode: 0o755 });
      assert.equal(execFileSync(join(directory, "script"), { encoding: "utf8" }), "ran\n");
    }),
  "/dev/shm and /run: limited": () => {
    for (const [path, share] of [
      ["/dev/shm", 0.25],
      ["/run", 0.1],
    ] as const) {
      const { blocks, bsize } = fs.statfsSync(path);
      const all = Number(/MemTotal:\s+(\d+)/.exec(fs.readFileSync("/proc/meminfo", "utf8"))?.[1]) * 1024;
      assert.ok(Math.abs((blocks * bsize) / all - share) < 0.02, `${path}: ${blocks * bsize} of ${all}`);
    }
  },
  "sqlite: in memory": () => {
    const database = new DatabaseSync(":memory:");
    database.exec("CREATE TABLE t (n INTEGER, s TEXT)");
    database.prepare("INSERT INTO t VALUES (?, ?)").run(7, "ä");
    assert.deepEqual({ ...database.prepare("SELECT * FROM t").get() }, { n: 7, s: "ä" });
    database.close();
  },
  "sqlite: a file with a write-ahead log": () =>
    inFolder((directory) => {
      const path = join(directory, "database");
      const writer = new DatabaseSync(path);
      assert.deepEqual({ ...writer.prepare("PRAGMA journal_mode=WAL").get() }, { journal_mode: "wal" });
      writer.exec("CREATE TABLE t (n); INSERT INTO t VALUES (1)");
      const reader = new DatabaseSync(path, { readOnly: true });
      assert.deepEqual({ ...reader.prepare("SELECT count(*) AS n FROM t").get() }, { n: 1 });
      writer.exec("BEGIN IMMEDIATE");
      assert.throws(() => new DatabaseSync(path).exec("BEGIN IMMEDIATE"), /locked/);
      reader.close();
      writer.close();
    }),
};
