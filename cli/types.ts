import { readFile } from "node:fs/promises";
import { relative, resolve } from "node:path";
import { CloisterError } from "../format/errors.ts";
import { loadConfig } from "../packer/project.ts";
import { declareEnvironment } from "../packer/types.ts";
import { command, type Io } from "./command.ts";
import { writeOutput } from "./output.ts";

const DECLARATIONS = "cloister-env.d.ts";

export const types = command({
  name: "types",
  operands: "",
  options: {
    project: {
      type: "string",
      value: "DIR",
      description: "Folder of cloister.config.ts (default: this one)",
    },
    check: { type: "boolean", description: "Write nothing; fail unless the file is what would be written" },
    json: { type: "boolean", description: "One JSON value: path, whether it changed" },
  },
  examples: ["cloister types", "cloister types --check"],
  async run(io, _operands, { project, check, json }) {
    const directory = resolve(io.directory, project ?? ".");
    const path = resolve(directory, DECLARATIONS);
    const wanted = declareEnvironment((await loadConfig(directory)).env);
    const found = await readIfAny(path);
    if (check === true && found !== wanted) throw stale(io, path, found);
    const changed = found !== wanted;
    if (changed) await writeOutput(path, wanted);
    const name = relative(io.directory, path);
    io.stdout.write(
      json === true
        ? `${JSON.stringify({ Path: path, Changed: changed }, null, 2)}\n`
        : `${name}: ${changed ? "written" : "up to date"}\n`,
    );
    return 0;
  },
});

function stale(io: Io, path: string, found: string | undefined): CloisterError {
  const got = found === undefined ? "no such file" : "another text";
  return new CloisterError(
    "E_TYPES",
    `${relative(io.directory, path)}: got ${got}, expected what the configuration gives`,
  );
}

/** undefined: there is none. What cannot be read is told when it is to be written, or is not what it should be. */
function readIfAny(path: string): Promise<string | undefined> {
  return readFile(path, "utf8").catch(() => undefined);
}
