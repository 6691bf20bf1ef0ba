/** Debian's Chromium, headless, where it is installed. */
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BrowserContext, chromium } from "playwright-core";

const PATH = "/usr/bin/chromium";

/** Why there is none; undefined: there is. */
export const chromiumMissing = existsSync(PATH)
  ? undefined
  : `${PATH} is not installed: apt-get install chromium`;

export interface Browser extends AsyncDisposable {
  readonly context: BrowserContext;
}

export async function openBrowser(): Promise<Browser> {
  const directory = mkdtempSync(join(tmpdir(), "cloister-chromium-"));
  const context = await chromium.launchPersistentContext(directory, {
    executablePath: PATH,
    headless: true,
    timeout: 120_000,
    args: [
      ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
      // It would look for hosts that a test machine may not reach.
      ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
    ],
  });
  return {
    context,
    async [Symbol.asyncDispose]() {
      await context.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
