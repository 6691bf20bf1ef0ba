#!/usr/bin/env node
import { create } from "./create.ts";

// `… | head`: a reader that left has what it wanted, and the project is still to be finished.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
});

process.exitCode = await create(process.argv.slice(2), {
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  directory: process.cwd(),
  isTTY: process.stdin.isTTY === true && process.stdout.isTTY === true,
  questions: () => import("./question.ts"),
});
