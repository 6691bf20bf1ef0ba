import { isUtf8 } from "node:buffer";
import { decodeEnclaveJson, ENCLAVE_JSON } from "../format/enclave.ts";
import { CloisterError } from "../format/errors.ts";
import { command, type Io } from "./command.ts";
import { type Contents, filesOf, normal, readContents, type SectionContents } from "./contents.ts";
import { printable } from "./printable.ts";
import { modeText, type RamdiskFile } from "./unpack.ts";

export const inspect = command({
  name: "inspect",
  operands: "FILE [PATH]",
  options: {
    json: {
      type: "boolean",
      description: "One JSON value: measurements, sections, files with modes and hashes",
    },
  },
  examples: [
    "cloister inspect app.eif",
    "cloister inspect app.eif /app/enclave.json",
    "cloister inspect app.eif /bin/node | sha256sum",
  ],
  async run(io, operands, { json }) {
    const [file, path, extra] = operands;
    if (file === undefined || extra !== undefined) {
      const found = extra === undefined ? "no EIF file" : `"${extra}" after "${path}"`;
      throw new CloisterError("E_USAGE", `cloister inspect: found ${found}, expected FILE [PATH]`);
    }
    const contents = await readContents(file);
    if (path !== undefined) print(io, contents, path);
    else io.stdout.write(json === true ? `${JSON.stringify(toJson(contents), null, 2)}\n` : table(contents));
    return 0;
  },
});

/** Files of a folder that an error names. */
const BELOW_MAX = 20;

/** A file's bytes as they are; on a terminal text only, its control characters shown and not obeyed. */
function print(io: Io, contents: Contents, path: string): void {
  const { data } = findFile(contents, path);
  if (io.stdout.isTTY !== true) {
    io.stdout.write(data);
    return;
  }
  if (!isUtf8(data) || data.includes(0)) {
    throw new CloisterError("E_IMAGE_FILE", `${path}: got ${data.length} bytes that are no text`, {
      fix: "Send them to a file or a pipe: `cloister inspect … > file`.",
    });
  }
  const text = Buffer.from(data).toString();
  io.stdout.write(`${text.split("\n").map(printable).join("\n")}${text.endsWith("\n") ? "" : "\n"}`);
}

function findFile({ path: eif, sections }: Contents, path: string): RamdiskFile {
  const files = filesOf(sections);
  const wanted = normal(path);
  const found = files.get(wanted);
  if (found?.sha256 !== undefined) return found;
  const below = [...files.keys()].filter((name) => name.startsWith(`${wanted}/`)).slice(0, BELOW_MAX);
  throw new CloisterError(
    "E_IMAGE_FILE",
    `${path}: got ${found === undefined ? `no such file in ${eif}` : facet(found)}, expected a file`,
    below.length === 0 ? {} : { details: below.map(printable).join("\n") },
  );
}

function facet({ mode, points }: RamdiskFile): string {
  return `${modeText(mode)}${points === undefined ? "" : ` → ${printable(points)}`}`;
}

/** Files with their types as JSON has them. */
export function fileJson({ path, mode, size, sha256, points }: RamdiskFile): object {
  return {
    Path: path,
    Mode: modeText(mode),
    SizeBytes: size,
    ...(sha256 !== undefined && { Sha256: sha256 }),
    ...(points !== undefined && { Points: points }),
  };
}

function toJson({ path, sizeBytes, eif, measurements, sections }: Contents): object {
  return {
    EifPath: path,
    SizeBytes: sizeBytes,
    EifVersion: eif.header.version,
    Arch: eif.header.arch,
    ...(isDevelopment(sections) && { Development: true }),
    Measurements: measurements,
    Sections: sections.map(({ name, offset, size, sha256, register, text, ramdisk }) => ({
      Type: name,
      Offset: offset,
      SizeBytes: size,
      Sha256: sha256,
      ...(register !== undefined && { Register: register }),
      ...(text !== undefined && { Text: text }),
      ...(ramdisk !== undefined && {
        Compression: ramdisk.compressions,
        UnpackedBytes: ramdisk.unpackedBytes,
        ...(ramdisk.unlisted !== undefined && { Unlisted: ramdisk.unlisted }),
        Files: ramdisk.files.map(fileJson),
      }),
    })),
  };
}

/** By the measured configuration; images of other tools have none. */
function isDevelopment(sections: readonly SectionContents[]): boolean {
  const configuration = filesOf(sections).get(ENCLAVE_JSON.slice(1))?.data;
  if (configuration === undefined) return false;
  try {
    return decodeEnclaveJson(configuration).dev;
  } catch {
    // E_ENCLAVE_JSON: of another release, or damaged.
    return false;
  }
}

function table({ path, eif, sizeBytes, measurements, sections }: Contents): string {
  const { version, arch, defaultMemory, defaultCpus } = eif.header;
  return [
    `${path}  EIF version ${version}, ${arch}, ${sizeBytes} bytes`,
    ...(isDevelopment(sections) ? ["  built for development by `cloister dev`: verifiers refuse it"] : []),
    `  for ${defaultMemory >> 20n} MiB and ${defaultCpus} CPUs, unless told otherwise`,
    ...(["PCR0", "PCR1", "PCR2"] as const).map((pcr) => `  ${pcr}  ${measurements[pcr]}`),
    ...sections.flatMap(sectionRows),
    "",
  ].join("\n");
}

function sectionRows({ name, offset, size, sha256, register, text, ramdisk }: SectionContents): string[] {
  const measured = register === undefined ? "" : `, in ${register}`;
  const head = `\n${name}${measured}: ${size} bytes at ${offset}, SHA-256 ${sha256}`;
  if (text !== undefined) return [head, `  ${printable(text)}`];
  if (ramdisk === undefined) return [head];
  const stored = [...new Set(ramdisk.compressions)].join(" and ") || "no archive";
  const width = Math.max(0, ...ramdisk.files.map(({ size }) => `${size}`.length));
  return [
    head,
    `  ${stored}, ${ramdisk.unpackedBytes} bytes unpacked, ${ramdisk.files.length} files`,
    ...ramdisk.files.map((file) => {
      const points = file.points === undefined ? "" : ` → ${printable(file.points)}`;
      return `  ${modeText(file.mode)} ${`${file.size}`.padStart(width)} ${printable(file.path)}${points}`;
    }),
    ...(ramdisk.unlisted === undefined ? [] : [`  not listed: ${ramdisk.unlisted}`]),
  ];
}
