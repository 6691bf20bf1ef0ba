/** Errors of programs that are missing; in this process, where the same are missing. */
import { exec, execFile, execFileSync, execSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { explainMissingPrograms } from "../../runtime/program.ts";

explainMissingPrograms();

const NAME = "no-such-program";
const explained = (path: string, syscall: string) => ({
  code: "ENOENT",
  path,
  syscall,
  message: `${syscall} ENOENT: E_NO_PROGRAM: got ${path}, expected Node: an enclave has no shell and no other program`,
  cause: { code: "E_NO_PROGRAM" },
});

function thrown(work: () => unknown): NodeJS.ErrnoException {
  try {
    work();
  } catch (error) {
    return error as NodeJS.ErrnoException;
  }
  throw new Error("nothing was thrown");
}

describe("a program that is missing", () => {
  test("spawn", async () => {
    const [error] = (await once(spawn(NAME), "error")) as [Error];
    expect(error).toMatchObject(explained(NAME, `spawn ${NAME}`));
    expect(error.stack).toContain("E_NO_PROGRAM");
  });

  test("execFile", async () => {
    await expect(promisify(execFile)(NAME)).rejects.toMatchObject(explained(NAME, `spawn ${NAME}`));
  });

  test("a shell", async () => {
    const options = { shell: "/no/sh" };
    await expect(promisify(exec)("ls", options)).rejects.toMatchObject(explained("/no/sh", "spawn /no/sh"));
    expect(thrown(() => execSync("ls", options))).toMatchObject(explained("/no/sh", "spawnSync /no/sh"));
  });

  test("synchronously", () => {
    expect(spawnSync(NAME).error).toMatchObject(explained(NAME, `spawnSync ${NAME}`));
    expect(thrown(() => execFileSync(NAME))).toMatchObject(explained(NAME, `spawnSync ${NAME}`));
  });

  test("an error that nobody listens to is still thrown", async () => {
    const child = spawn(process.execPath, ["-p", "1"]);
    expect(() => child.emit("error", new Error("unheard"))).toThrow("unheard");
    await once(child, "close");
  });
});

describe("what is not missing", () => {
  test.each([
    ["a folder", () => spawnSync(process.execPath, [], { cwd: "/no/folder" }).error],
    ["a folder, by name", () => spawnSync("node", [], { cwd: "/no/folder" }).error],
    ["permission", () => spawnSync("/etc/passwd").error],
  ])("%s is not explained", (_, run) => expect(run()?.message).not.toContain("E_NO_PROGRAM"));

  test("a program that fails fails as ever", () => {
    expect(thrown(() => execFileSync(process.execPath, ["-e", "process.exit(3)"]))).toMatchObject({
      status: 3,
    });
    expect(execFileSync(process.execPath, ["-p", "6*7"], { encoding: "utf8" })).toBe("42\n");
  });
});
