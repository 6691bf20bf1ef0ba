/** The host half of an e2e test: build an app from source text, run it in the emulator, keep its story for a failure. */
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { onTestFailed } from "vitest";
import { createEmulatedDevice, type EmulatedDeviceOptions } from "../../emulator/index.ts";
import {
  type Enclave,
  type EnclaveEvent,
  type LaunchOptions,
  launch,
  type ParentVsock,
  type VsockStream,
} from "../../launcher/index.ts";
import { type BuildResult, build, type CloisterConfig } from "../../packer/index.ts";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));
export const CACHE = join(ROOT, "node_modules/.cache/cloister");

export interface BuiltApp extends BuildResult {
  readonly directory: string;
  remove(): void;
}

/** Build an app whose files are given by path; `app.ts` is the entry. */
export async function buildApp(
  files: Readonly<Record<string, string>>,
  overrides: CloisterConfig = {},
): Promise<BuiltApp> {
  const name = createHash("sha256").update(JSON.stringify(files)).digest("hex").slice(0, 8);
  const directory = mkdtempSync(join(tmpdir(), `cloister-${name}-`));
  for (const [path, text] of Object.entries({ "package.json": '{"type":"module"}', ...files })) {
    mkdirSync(dirname(join(directory, path)), { recursive: true });
    writeFileSync(join(directory, path), text);
  }
  // The base is compressed once for all tests.
  const result = await build({
    directory,
    overrides: { name: "probe", ...overrides },
    cacheDirectory: CACHE,
  });
  return { ...result, directory, remove: () => rmSync(directory, { recursive: true, force: true }) };
}

export interface Running extends AsyncDisposable {
  readonly enclave: Enclave;
  readonly events: readonly EnclaveEvent[];
  /** Log texts of the app so far, in order. */
  logs(): string[];
  /** Serial console so far, in production mode too. */
  console(): string;
  /** Events and console, to be shown when a test fails. */
  story(): string;
  /** The parent's own vsock. */
  readonly vsock: ParentVsock;
  /** The root of its documents, DER. */
  attestationRoot(): Promise<Uint8Array>;
  /** URL of the first published port. */
  readonly url: string;
}

/** Start it. A test that fails meanwhile shows the enclave's story and its console. */
export async function start(
  eif: string,
  options: Omit<LaunchOptions, "device"> & {
    readonly emulator?: EmulatedDeviceOptions;
    /** What the launcher accepts, before it does. */
    readonly onAccept?: (port: number, stream: VsockStream) => void;
  } = {},
): Promise<Running> {
  const device = createEmulatedDevice(options.emulator);
  const events: EnclaveEvent[] = [];
  let tail = (): string => "";
  const createVm = device.createVm.bind(device);
  const listen: ParentVsock["listen"] = (port, onConnection) =>
    device.vsock.listen(port, (stream) => {
      options.onAccept?.(port, stream);
      onConnection(stream);
    });
  const watched = {
    ...device,
    vsock: { listen, connect: device.vsock.connect.bind(device.vsock) },
    createVm() {
      const vm = createVm();
      tail = () => vm.consoleTail();
      return vm;
    },
  };
  const story = () => `${events.map((event) => JSON.stringify(event)).join("\n")}\n--- console\n${tail()}`;
  showOnFailure(story);
  try {
    const publish = options.publish ?? [{ port: 0, vsockPort: 8080 }];
    const onEvent = (event: EnclaveEvent) => events.push(event);
    const enclave = await launch(eif, { ...options, publish, device: watched, onEvent });
    return {
      enclave,
      events,
      logs: () =>
        events.flatMap((event) => (event.type === "log" && event.source !== "init" ? event.text : [])),
      console: () => tail(),
      story,
      vsock: device.vsock,
      attestationRoot: () => device.attestationRoot(),
      url: `http://127.0.0.1:${enclave.published[0]?.port}`,
      async [Symbol.asyncDispose]() {
        await enclave.terminate();
        device.close();
      },
    };
  } catch (error) {
    device.close();
    throw error;
  }
}

function showOnFailure(story: () => string): void {
  try {
    onTestFailed(() => console.error(story()));
  } catch {
    // Called from a hook, where there is no test yet: its file shows the story of each test that fails.
  }
}
