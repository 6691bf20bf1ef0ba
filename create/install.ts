/** The package manager: which one, and having it install. */
import { spawnSync } from "node:child_process";
import { Failure } from "./failure.ts";
import { MANAGERS, type Manager } from "./options.ts";

/** The one that runs this: all of them say so as `pnpm/10.1.0 npm/? node/v20.0.0 …`. */
export function detectManager(env: NodeJS.ProcessEnv): Manager {
  const name = env.npm_config_user_agent?.split("/")[0];
  return MANAGERS.find((manager) => manager === name) ?? "npm";
}

/** Run its `install`; what it prints goes to standard error. Throws Failure; the project stays, whole. */
export function install(manager: Manager, directory: string): void {
  const { status, signal, error } = spawnSync(manager, ["install"], {
    cwd: directory,
    stdio: ["ignore", 2, 2],
    shell: process.platform === "win32",
  });
  if (status === 0) return;
  const why = (error as NodeJS.ErrnoException | undefined)?.code ?? signal ?? `exit status ${status}`;
  throw new Failure(
    `${manager} install: got ${why}, expected the packages; the project itself is complete`,
    `See what ${manager} says above. With a network: \`cd ${quoted(directory)} && ${manager} install\`.`,
  );
}

/** As a word for a shell. */
export function quoted(path: string): string {
  return /^[\w./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;
}
