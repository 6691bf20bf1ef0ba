/**
 * Completion scripts in the shells themselves. `cloister` there is a stub that knows the names of two enclaves. A shell
 * that is not installed skips its tests, with the reason.
 */
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { VERBS } from "../../cli/main.ts";
import { call } from "./image.ts";

const directory = mkdtempSync(join(tmpdir(), "cloister-completion-"));
const script = (shell: string) => join(directory, `cloister.${shell}`);
const DEADLINE_MS = 30_000;

beforeAll(async () => {
  for (const shell of ["bash", "zsh", "fish"]) {
    const { status, stdout } = await call(["completion", shell]);
    expect(status).toBe(0);
    writeFileSync(script(shell), stdout);
  }
  const stub = join(directory, "cloister");
  writeFileSync(stub, '#!/bin/sh\n[ "$1" = ps ] && printf "signer\\nsigner-2\\n"\n');
  chmodSync(stub, 0o755);
  mkdirSync(join(directory, "folder"));
  writeFileSync(join(directory, "app.eif"), "");
});

afterAll(() => rmSync(directory, { recursive: true, force: true }));

function shell(name: string, ...words: string[]): { readonly stdout: string; readonly stderr: string } {
  const env = { PATH: `${directory}:${process.env.PATH}`, HOME: directory, TERM: "dumb", LC_ALL: "C.UTF-8" };
  return spawnSync(name, words, { cwd: directory, env, encoding: "utf8", timeout: DEADLINE_MS });
}

function missing(name: string): string | undefined {
  return spawnSync(name, ["-c", "true"]).error === undefined ? undefined : `${name} is not installed`;
}

/** Words before the cursor, and what is offered; `[]`: the shell's own, which are files. */
const CASES: readonly (readonly [readonly string[], readonly string[]])[] = [
  [["bu"], ["build"]],
  [["te"], ["terminate"]],
  [["build", "--comp"], ["--compression"]],
  [["build", "--compression", "z"], ["zstd"]],
  [["run", "--restart", ""], ["on-failure"]],
  [
    ["logs", "sig"],
    ["signer", "signer-2"],
  ],
  [["describe", "-e", "signer-"], ["signer-2"]],
  [["completion", "f"], ["fish"]],
];

/** What bash would offer for these words: the function is called as readline does. */
function bashReply(words: readonly string[]): string[] {
  const quoted = ["cloister", ...words].map((word) => `'${word}'`).join(" ");
  const { stdout, stderr } = shell(
    "bash",
    "--norc",
    "-c",
    // Outside of a completion compopt has nothing to change, and says so.
    `compopt() { echo "none"; }; source ${script("bash")}; COMP_WORDS=(${quoted}); COMP_CWORD=${words.length}; _cloister; printf '%s\\n' "\${COMPREPLY[@]}"`,
  );
  expect(stderr).toBe("");
  return stdout.split("\n").filter((line) => line !== "");
}

describe("bash", () => {
  test.each(CASES)("%j completes to %j", (words, expected) => expect(bashReply(words)).toEqual(expected));

  test("every verb, and every option of each", async () => {
    expect(bashReply([""])).toEqual(expect.arrayContaining(VERBS.map(({ name }) => name)));
    for (const { name, load } of VERBS) {
      const options = Object.keys((await load()).options).map((option) => `--${option}`);
      expect(bashReply([name, "--"])).toEqual(expect.arrayContaining([...options, "--help"]));
    }
  });

  test("leaves files to the shell, and offers none where there are none to name", () => {
    expect(bashReply(["run", "a"])).toEqual([]);
    expect(bashReply(["build", "-o", "a"])).toEqual([]);
    expect(bashReply(["build", "--project", ""])).toEqual(["folder"]);
    expect(bashReply(["run", "--memory", ""])).toEqual(["none"]);
    expect(bashReply(["nonsense", ""])).toEqual([]);
  });
});

describe("zsh", () => {
  const reason = missing("zsh");

  /** The line after a TAB at its end, in a terminal of its own; ^X ends the shell and tells its line. */
  function zshLine(words: readonly string[]): string {
    const line = ["cloister", ...words].join(" ");
    const told = join(directory, "line");
    rmSync(told, { force: true });
    const setup = `autoload -Uz compinit; compinit -u -D; source ${script("zsh")}
      tell() { print -r -- $BUFFER > ${told}; exit; }
      zle -N tell; bindkey '^X' tell; PS1='READY'`;
    writeFileSync(join(directory, ".zshrc"), setup);
    const program = `
      zmodload zsh/zpty
      zpty shell 'ZDOTDIR=${directory} exec zsh -d -i'
      zpty -r -m shell x '*READY*'
      zpty -w -n shell ${JSON.stringify(line)}$'\\t\\x18'
      while zpty -r shell x; do :; done`;
    const { stdout, stderr } = shell("zsh", "-f", "-c", program);
    return existsSync(told) ? readFileSync(told, "utf8").trim() : `${stdout}${stderr}`;
  }

  test.skipIf(reason !== undefined).each(CASES.filter(([, offered]) => offered.length === 1))(
    `%j completes to %j${reason === undefined ? "" : `: ${reason}`}`,
    (words, [offered = ""]) =>
      expect(zshLine(words)).toBe(["cloister", ...words.slice(0, -1), offered].join(" ")),
  );
});

describe("fish", () => {
  const reason = missing("fish");

  function fishReply(words: readonly string[]): string[] {
    const line = ["cloister", ...words].join(" ");
    const { stdout } = shell(
      "fish",
      "--no-config",
      "-c",
      `source ${script("fish")}; complete -C ${JSON.stringify(line)}`,
    );
    return stdout.split("\n").flatMap((row) => row.split("\t")[0] || []);
  }

  test.skipIf(reason !== undefined).each(CASES)(
    `%j completes to %j${reason === undefined ? "" : `: ${reason}`}`,
    (words, expected) => expect(fishReply(words)).toEqual(expected),
  );

  test.skipIf(reason !== undefined)("files where files are wanted, and only there", () => {
    expect(fishReply(["run", "a"])).toContain("app.eif");
    expect(fishReply(["build", "--project", ""])).toEqual(["folder/"]);
    expect(fishReply(["ps", "a"])).toEqual([]);
  });
});

test.each([[["completion"]], [["completion", "tcsh"]]])("%j is a usage error", async (words) => {
  expect((await call(words)).status).toBe(2);
});
