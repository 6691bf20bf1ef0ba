/** Worker threads: each has a Node of its own, whose network must be routed before the worker's first line runs. */
import { syncBuiltinESMExports } from "node:module";
import type { Worker as NodeWorker, WorkerOptions } from "node:worker_threads";

/** From here on every worker loads `script` first; one that is made with an `execArgv` too. */
export function preloadWorkers(script: string): void {
  const threads = process.getBuiltinModule("node:worker_threads") as { Worker: typeof NodeWorker };
  threads.Worker = class Worker extends threads.Worker {
    constructor(filename: string | URL, options: WorkerOptions = {}) {
      const execArgv = [...(options.execArgv ?? process.execArgv), "--require", script];
      super(filename, { ...options, execArgv });
    }
  };
  // `import { Worker } from "node:worker_threads"` has a copy.
  syncBuiltinESMExports();
}
