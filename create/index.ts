#!/usr/bin/env node
import { create } from "./create.ts";

process.exitCode = await create(process.argv.slice(2), {
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  directory: process.cwd(),
  isTTY: process.stdin.isTTY === true && process.stdout.isTTY === true,
  questions: () => import("./question.ts"),
});
