/** Makes dist/, what is published instead of the sources: `npm run build`. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import {
  bundlePrograms,
  DEVELOPMENT_PROGRAMS,
  ENCLAVE_PROGRAMS,
  PROGRAM_DIGESTS,
  PROGRAM_DIRECTORY,
} from "../packer/program.ts";
import { readRelease } from "../packer/release.ts";

const release = readRelease();
process.chdir(release.directory);
for (const [config, output] of [
  ["tsconfig.build.json", "dist"],
  ["create/tsconfig.json", "create/dist"],
] as const) {
  // What a renamed source left there would be published too.
  rmSync(output, { recursive: true, force: true });
  const { status } = spawnSync("node_modules/.bin/tsc", ["-p", config], { stdio: ["ignore", 2, 2] });
  if (status !== 0) process.exit(1);
}

const digests: Record<string, string> = {};
for (const set of [ENCLAVE_PROGRAMS, DEVELOPMENT_PROGRAMS]) {
  for (const { target, data } of await bundlePrograms(release, set)) {
    const name = join(set.folder, target);
    const path = join(PROGRAM_DIRECTORY, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, data);
    digests[name] = createHash("sha256").update(data).digest("hex");
  }
}
writeFileSync(join(PROGRAM_DIRECTORY, PROGRAM_DIGESTS), `${JSON.stringify(digests, null, 2)}\n`);
