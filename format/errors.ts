/**
 * The catalogue of errors that users meet. `docs/errors.md` is generated from it; a message names where, what was
 * found and what was expected, the catalogue adds the cause and what to do.
 */
export interface ErrorEntry {
  readonly cause: string;
  readonly fix: string;
}

const catalogue = {
  E_USAGE: {
    cause: "The command line has a verb, option or value that cloister does not know.",
    fix: "Run `cloister --help` or `cloister VERB --help`.",
  },
  E_INTERNAL: {
    cause: "cloister itself went wrong: a bug.",
    fix: "Run again with CLOISTER_DEBUG=1 and report the stack trace it prints.",
  },
  E_EIF_MAGIC: {
    cause: "The file is not an enclave image: it does not begin with the bytes `.eif`.",
    fix: "Name a file that `cloister build` or nitro-cli wrote.",
  },
  E_EIF_TRUNCATED: {
    cause: "The enclave image ends before its own tables say it does.",
    fix: "Copy or build the file again.",
  },
  E_EIF_CRC: {
    cause: "The enclave image's bytes do not match the checksum in its header: it was damaged or edited.",
    fix: "Copy or build the file again.",
  },
  E_EIF_VERSION: {
    cause: "The enclave image has a format version that no released tool writes.",
    fix: "Build the image again with a current tool; versions 2 to 4 are known.",
  },
  E_EIF_ARCH: {
    cause: "The enclave image was built for another processor architecture.",
    fix: "Build the image for the architecture of the machine that runs it.",
  },
  E_EIF_SECTION_COUNT: {
    cause: "The enclave image says it has fewer or more sections than the format allows.",
    fix: "Build the image again.",
  },
  E_EIF_SECTION_TYPE: {
    cause: "The enclave image has a section of a type that the format does not know.",
    fix: "Build the image again.",
  },
  E_EIF_SECTION_OVERLAP: {
    cause: "Two sections of the enclave image share bytes.",
    fix: "Build the image again.",
  },
  E_EIF_SECTION_SIZE: {
    cause:
      "The enclave image's tables disagree about where sections lie. nitro-cli's sign-eif leaves this behind when it " +
      "signs an image for the second time.",
    fix: "Build the image again and sign it once.",
  },
  E_EIF_SECTIONS: {
    cause: "The enclave image lacks a section it needs, has one too many, or has them in the wrong order.",
    fix: "Build the image again.",
  },
  E_KERNEL: {
    cause: "The file is not a kernel that an enclave of this architecture can boot.",
    fix: "Use a bzImage for x86_64, an uncompressed Image for aarch64.",
  },
  E_CPIO: {
    cause: "A ramdisk archive cannot be written or read as a newc cpio archive.",
    fix: "Correct the named entry, or build the ramdisk again.",
  },
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof catalogue;
export const ERRORS: Readonly<Record<ErrorCode, ErrorEntry>> = catalogue;

export interface CloisterErrorOptions {
  /** What to do in this very case, where it can be said better than the catalogue does. */
  readonly fix?: string;
  /** More lines to show below the message: a bundler's frame, the console's last lines. */
  readonly details?: string;
  readonly cause?: unknown;
}

/** An error whose fault is not ours: shown as code, message, details and fix, never as a stack trace. */
export class CloisterError extends Error {
  readonly code: ErrorCode;
  readonly fix: string;
  readonly details: string | undefined;

  constructor(code: ErrorCode, message: string, options: CloisterErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "CloisterError";
    this.code = code;
    this.fix = options.fix ?? ERRORS[code].fix;
    this.details = options.details;
  }
}

/** The error of a value that is not what it must be: where it was found, what it is, what it should be. */
export function mismatch(
  code: ErrorCode,
  where: string,
  got: string | number | bigint,
  expected: string,
): CloisterError {
  return new CloisterError(code, `${where}: got ${got}, expected ${expected}`);
}

/** A byte offset as messages name it. */
export function at(offset: number): string {
  return `offset ${offset} (0x${offset.toString(16)})`;
}
