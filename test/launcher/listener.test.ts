/** Places that cannot be listened at: each is an error of the catalogue that names the place. */
import { createServer } from "node:net";
import { expect, test } from "vitest";
import { listenAt } from "../../launcher/listener.ts";

test.each([
  ["a folder that is none", "/dev/null/app.sock", /got (EACCES|ENOTDIR)/],
  ["a folder that is not there", "/nowhere/app.sock", /got (EACCES|ENOENT)/],
  ["a file that is no socket", "/dev/null", /got EADDRINUSE/],
] as const)("a Unix socket in %s", async (_, path, message) => {
  await expect(listenAt(createServer(), { path })).rejects.toMatchObject({
    code: "E_SOCKET_UNUSABLE",
    message: expect.stringMatching(message),
  });
});
