/**
 * Makes what is published: `npm run release [DIRECTORY]`. Checks, packs both packages twice, compares, and prints their
 * checksums with PCR1, which every app of the release has. Publishing is another step, by whoever holds the key.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { FLOOR_MS } from "../init/time/enclave.ts";
import { build } from "../packer/index.ts";
import { readRelease } from "../packer/release.ts";
import { floorProblem } from "./floor.ts";

const PACKAGES = [".", "create"] as const;

const { directory: root, version } = readRelease();
const output = resolve(process.argv[2] ?? ".cloister/release");
process.chdir(root);

const changed = run("git", "status", "--porcelain");
if (changed !== "") fail(`expected a clean tree, found\n${changed}`);
for (const folder of PACKAGES) {
  const found = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")).version;
  if (found !== version) fail(`${folder}/package.json: got version ${found}, expected ${version}`);
}
// Of the commit, not of now: who makes this release again later is told the same.
const problem = floorProblem(FLOOR_MS, Number(run("git", "log", "-1", "--format=%ct")) * 1000);
if (problem !== undefined) fail(problem);
show("npm", "run", "--silent", "check");
show("npm", "test");

mkdirSync(output, { recursive: true });
const scratch = mkdtempSync(join(tmpdir(), "cloister-release-"));
try {
  const sums = pack(output);
  const again = pack(scratch);
  if (sums !== again) fail(`two packings differ:\n${sums}${again}`);
  writeFileSync(join(output, "SHA256SUMS"), sums);
  const image = join(scratch, "hello.eif");
  const { measurements } = await build({ directory: "examples/hello", output: image });
  console.log(`cloister ${version} in ${output}\n\n${sums}\nPCR1 ${measurements.PCR1}`);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

/** Pack both into `directory`; their checksums, as sha256sum(1) writes and reads them. */
function pack(directory: string): string {
  const lines = PACKAGES.map((folder) => {
    const words = ["pack", `./${folder}`, "--json", "--pack-destination", directory];
    const [{ filename }] = JSON.parse(run("npm", ...words)) as [{ readonly filename: string }];
    const digest = createHash("sha256")
      .update(readFileSync(join(directory, filename)))
      .digest("hex");
    return `${digest}  ${filename}\n`;
  });
  return lines.join("");
}

function run(command: string, ...words: readonly string[]): string {
  return execFileSync(command, words, { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] });
}

/** As `run`, for people to watch. */
function show(command: string, ...words: readonly string[]): void {
  execFileSync(command, words, { stdio: ["ignore", 2, 2] });
}

function fail(message: string): never {
  console.error(`error: ${message}`);
  process.exit(1);
}
