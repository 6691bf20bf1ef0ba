import { execFile } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { resolve } from "node:path";
import { promisify } from "node:util";
import { CloisterError } from "../format/errors.ts";
import { openRunDirectory } from "../launcher/directory.ts";
import { checkParent } from "../launcher/doctor.ts";
import { type Finding, ok, problem, Tree } from "../launcher/finding.ts";
import { openImage } from "../launcher/image.ts";
import { Registry } from "../launcher/registry.ts";
import { chooseCpus, chooseMemory } from "../launcher/size.ts";
import { command, type Io } from "./command.ts";
import { describeFile } from "./describe.ts";
import { checkLaptop } from "./laptop.ts";
import { parseInteger, parseMemory } from "./operand.ts";

/** What the packer gives an enclave where nobody says otherwise. */
const DEFAULT_MEMORY = 512 << 20;
/** Between two answers of QEMU. */
const PROGRAM_LIMIT_MS = 20_000;

export const doctor = command({
  name: "doctor",
  operands: "[FILE]",
  options: {
    emulator: { type: "boolean", description: "Check this machine for the emulator, not for the driver" },
    memory: { type: "string", value: "SIZE", description: "As for `cloister run`" },
    cpus: { type: "string", value: "N", description: "As for `cloister run`" },
    json: { type: "boolean", description: "One JSON value: Ready, and what each check found" },
  },
  examples: ["cloister doctor app.eif", "cloister doctor --emulator --json | jq .Ready"],
  async run(io, operands, { emulator, memory, cpus, json }) {
    const [file, extra] = operands;
    if (extra !== undefined)
      throw new CloisterError("E_USAGE", `cloister doctor: found "${extra}", expected one file`);
    const image =
      file === undefined
        ? undefined
        : await checkImage(resolve(io.directory, file), {
            ...(memory !== undefined && { memoryMiB: parseMemory("--memory", memory) }),
            ...(cpus !== undefined && { cpus: parseInteger("--cpus", cpus, 1, 512) }),
          });
    const run = checkRunDirectory(io);
    const machine =
      emulator === true ? await laptop(io, image?.need?.memory) : parent(run.usedCpus, image?.need);
    const findings = [...(image?.findings ?? []), ...machine, run.finding];
    const isReady = findings.every(({ status }) => status !== "problem");
    if (json === true) io.stdout.write(`${JSON.stringify(findingsJson(findings, isReady), null, 2)}\n`);
    else showFindings(io, findings, isReady);
    return isReady ? 0 : 1;
  },
});

function parent(usedCpus: number, need: Need | undefined): Finding[] {
  const user = {
    uid: process.geteuid?.() ?? 0,
    gids: [process.getegid?.() ?? 0, ...(process.getgroups?.() ?? [])],
  };
  return checkParent({ user, now: Date.now(), need, usedCpus });
}

function laptop(io: Io, memory = DEFAULT_MEMORY): Promise<Finding[]> {
  const execute = promisify(execFile);
  return checkLaptop({
    tree: new Tree(),
    path: io.env.PATH ?? "",
    memory,
    run: async (program, args) =>
      (await execute(program, args, { timeout: PROGRAM_LIMIT_MS, signal: io.signal, encoding: "utf8" }))
        .stdout,
    mayUse: (path) => {
      try {
        accessSync(path, constants.R_OK | constants.W_OK);
        return true;
      } catch {
        return false;
      }
    },
  });
}

interface Need {
  readonly memory: number;
  readonly cpus: number;
}

/** What the image is, and what it needs where it can be told. */
async function checkImage(
  path: string,
  sizes: { readonly memoryMiB?: number; readonly cpus?: number },
): Promise<{ readonly findings: Finding[]; readonly need?: Need }> {
  try {
    const { CheckCRC } = await describeFile(path);
    if (!CheckCRC) {
      return {
        findings: [
          problem("image", `${path}: damaged`, "the CRC-32 of its header", "Copy or build it again."),
        ],
      };
    }
    await using image = await openImage(path);
    const need = {
      memory: chooseMemory(image, sizes.memoryMiB),
      cpus: chooseCpus(image, sizes.cpus).length,
    };
    const text = `${path}: ${Math.ceil(image.size / 2 ** 20)} MiB, asks for ${need.memory / 2 ** 20} MiB and ${need.cpus} CPUs`;
    return { findings: [ok("image", text)], need };
  } catch (error) {
    if (!(error instanceof CloisterError)) throw error;
    return {
      findings: [problem("image", error.message, "an image that fits", error.fix ?? "Build it again.")],
    };
  }
}

function checkRunDirectory({ env }: Io): { readonly finding: Finding; readonly usedCpus: number } {
  try {
    const directory = openRunDirectory(env);
    const running = new Registry(directory).list().filter(({ record }) => record.state !== "ended");
    const cpus = running.flatMap(({ record }) => (record.emulated ? [] : (record.cpuIds ?? [])));
    return {
      finding: ok("run directory", `${directory}, ${running.length} enclaves`),
      usedCpus: cpus.length,
    };
  } catch (error) {
    if (!(error instanceof CloisterError)) throw error;
    const finding = problem("run directory", error.message, "one of this user", error.fix ?? "");
    return { finding, usedCpus: 0 };
  }
}

function findingsJson(findings: readonly Finding[], isReady: boolean): object {
  return {
    Ready: isReady,
    Findings: findings.map(({ check, status, found, expected, fix }) => ({
      Check: check,
      Status: status,
      Found: found,
      Expected: expected,
      ...(fix !== undefined && { Fix: fix }),
    })),
  };
}

const MARKS = { ok: "ok", warning: "warning", problem: "PROBLEM" } as const;

function showFindings({ stdout }: Io, findings: readonly Finding[], isReady: boolean): void {
  for (const { check, status, found, expected, fix } of findings) {
    stdout.write(`${MARKS[status].padEnd(8)} ${check.padEnd(14)} ${found}\n`);
    if (status === "ok") continue;
    stdout.write(`${" ".repeat(9)}${"expected".padEnd(14)} ${expected}\n`);
    if (fix) stdout.write(`${" ".repeat(9)}${"fix".padEnd(14)} ${fix}\n`);
  }
  stdout.write(isReady ? "ready\n" : "not ready\n");
}
