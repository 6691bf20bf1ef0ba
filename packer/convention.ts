/** Where a project's parts are looked for, relative to its folder. */

/** At most one of them is there. */
export const CONFIG_FILES: readonly string[] = [".ts", ".mts", ".js", ".mjs", ".json"].map(
  (extension) => `cloister.config${extension}`,
);

/** The app's entry module, when neither the command line nor the configuration names one: the first that is there. */
export const ENTRY_FILES: readonly string[] = [
  "app",
  "src/app",
  "index",
  "src/index",
  "server",
  "src/server",
].flatMap((name) => [".ts", ".mts", ".js", ".mjs"].map((extension) => `${name}${extension}`));
