import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { readAuthorities } from "../../packer/authority.ts";
import { loadProject } from "../../packer/project.ts";
import { certificate, key } from "../runtime/certificate.ts";
import { failure, folder } from "./folder.ts";

const project = (directory: string, ...ca: string[]) => loadProject({ directory, overrides: { ca } });

test("certificates of all files, one by one, and nothing else that is in them", async () => {
  const directory = folder({
    "app.ts": "",
    "two.pem": `# note\n${certificate}\n${certificate}`,
    "ca/one.pem": certificate,
  });
  const read = readAuthorities(await project(directory, "two.pem", "ca/one.pem"));
  expect(read).toEqual([certificate, certificate, certificate]);
});

test.each([
  ["absent", undefined, "got ENOENT"],
  ["a key", key, "got none"],
  ["damaged", certificate.replace("MIIB", "AAAA"), "got "],
])("%s is refused by its place", async (_, text, got) => {
  const directory = folder({ "app.ts": "", "good.pem": certificate });
  if (text !== undefined) writeFileSync(join(directory, "bad.pem"), text);
  const loaded = await project(directory, "good.pem", "bad.pem");
  const error = await failure(async () => readAuthorities(loaded));
  expect(error).toMatchObject({
    code: "E_CONFIG",
    message: expect.stringContaining(`ca[1]: bad.pem: ${got}`),
  });
});
