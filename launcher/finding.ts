/** What a check of the machine found, and what it looked at. */
import { readdirSync, readFileSync, type Stats, statSync } from "node:fs";
import { join } from "node:path";

export interface Finding {
  /** What was looked at, in a word or two. */
  readonly check: string;
  /** `warning`: an enclave starts, but. */
  readonly status: "ok" | "warning" | "problem";
  readonly found: string;
  readonly expected: string;
  /** The command or change that mends it. */
  readonly fix?: string;
}

export function ok(check: string, found: string): Finding {
  return { check, status: "ok", found, expected: found };
}

export function warning(check: string, found: string, expected: string, fix: string): Finding {
  return { check, status: "warning", found, expected, fix };
}

export function problem(check: string, found: string, expected: string, fix: string): Finding {
  return { check, status: "problem", found, expected, fix };
}

/** The files of this machine, or a copy of another's under a directory. */
export class Tree {
  readonly #root: string;

  constructor(root = "/") {
    this.#root = root;
  }

  path(path: string): string {
    return join(this.#root, path);
  }

  /** Trimmed; undefined where there is no such file, or none for this user. */
  text(path: string): string | undefined {
    return tolerate(() => readFileSync(this.path(path), "utf8").trim());
  }

  list(path: string): string[] {
    return tolerate(() => readdirSync(this.path(path))) ?? [];
  }

  stat(path: string): Stats | undefined {
    return tolerate(() => statSync(this.path(path)));
  }

  /** A symbolic link too that leads nowhere, as systemd's marks do. */
  has(folder: string, name: string): boolean {
    return this.list(folder).includes(name);
  }
}

/** Whatever hides a file, a check says what it lacks. */
function tolerate<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

/** `1-3,8` → 1, 2, 3, 8 (cpu lists of sysfs). */
export function parseCpuList(text: string): number[] {
  return text.split(",").flatMap((range) => {
    const [, first, last = first] = /^(\d+)(?:-(\d+))?$/.exec(range.trim()) ?? [];
    if (first === undefined) return [];
    return Array.from({ length: Number(last) - Number(first) + 1 }, (_, index) => Number(first) + index);
  });
}
