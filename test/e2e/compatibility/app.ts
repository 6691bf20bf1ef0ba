/**
 * Guest half of compatibility.test.ts: each path is a check by name, and its answer says whether it held. Nothing in here
 * knows of enclaves, but for what the checks expect of this machine's name and size.
 */
import type { Checks } from "./check.ts";
import { computing } from "./computing.ts";
import { files } from "./files.ts";
import { language } from "./language.ts";
import { network } from "./network.ts";
import { processes } from "./processes.ts";

const checks: Checks = { ...files, ...processes, ...language, ...computing, ...network };

export default {
  async fetch(request: Request): Promise<Response> {
    const name = decodeURIComponent(new URL(request.url).pathname.slice(1));
    if (name === "") return Response.json(Object.keys(checks));
    try {
      await checks[name]?.();
      return Response.json("held");
    } catch (error) {
      return Response.json(error instanceof Error ? error.stack : String(error));
    }
  },
};
