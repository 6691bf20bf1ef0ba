import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: "test/pages.ts",
    // A VM under software emulation on a busy two-core machine: deadlines are there to end a hang, not to time.
    testTimeout: 120_000,
    hookTimeout: 300_000,
    // Two VMs at once on two cores only slow each other down.
    maxWorkers: 2,
    // node:ffi, worker threads and child processes are the process's own.
    pool: "forks",
  },
});
