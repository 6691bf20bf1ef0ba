import { join, resolve } from "node:path";
import type { GatewayPort } from "../dev/gateway.ts";
import { DevLoop, type LoopOptions } from "../dev/loop.ts";
import { PORT_INSPECTOR } from "../format/abi.ts";
import { CloisterError } from "../format/errors.ts";
import type { LocalEgress } from "../launcher/egress.ts";
import { defaultCacheDirectory } from "../packer/cache.ts";
import { command, type Options, type Values } from "./command.ts";
import { readKeys } from "./keys.ts";
import { ALLOW_LOCAL, parseLocalEgress } from "./local.ts";
import { parseInteger, parsePublish, refusal } from "./operand.ts";
import { jsonStory, type Tell, TextStory } from "./story.ts";

/** As Node's own. */
const INSPECTOR_PORT = 9229;
const IMAGE = "dev.eif";

const OPTIONS = {
  project: {
    type: "string",
    value: "DIR",
    description: "Folder of cloister.config.ts (default: this one)",
  },
  bare: {
    type: "boolean",
    description: "No VM: a plain process, for machines without QEMU; isolates nothing",
  },
  publish: {
    type: "string",
    short: "p",
    multiple: true,
    value: "[ADDR:]PORT:VSOCKPORT",
    description: "Where to reach the app (default: each configured port on 127.0.0.1, or a free one)",
  },
  "allow-local": ALLOW_LOCAL,
  inspect: { type: "boolean", description: "Have Node's inspector listen on 127.0.0.1:9229" },
  "inspect-port": {
    type: "string",
    value: "PORT",
    description: "The same, on this port; 0 takes a free one",
  },
  quiet: { type: "boolean", short: "q", description: "Only the app's lines, errors and its end" },
  json: { type: "boolean", description: "Events as JSON lines" },
} as const satisfies Options;

export const dev = command({
  name: "dev",
  operands: "[ENTRY]",
  options: OPTIONS,
  examples: [
    "cloister dev",
    "cloister dev src/app.ts --publish 3000:8080 --inspect",
    "cloister dev --bare",
    "cloister dev --allow-local db.example:5432=127.0.0.1:5432",
  ],
  async run(io, operands, values) {
    const [entry, extra] = operands;
    if (extra !== undefined) {
      throw new CloisterError(
        "E_USAGE",
        `cloister dev: found "${extra}" after "${entry}", expected one ENTRY`,
      );
    }
    const directory = resolve(io.directory, values.project ?? ".");
    const quit = Promise.withResolvers<void>();
    io.signal.addEventListener("abort", () => quit.resolve(), { once: true });
    if (io.signal.aborted) quit.resolve();
    const story = values.json === true ? undefined : new TextStory(io, values.quiet === true);
    const tell: Tell = story === undefined ? jsonStory(io) : (event) => story.tell(event);
    const setup = values.bare === true ? await setUpPlain(values) : await setUpMachine(directory, values);
    if (values.bare === true) story?.say(BARE_WARNING);
    await using loop = new DevLoop({
      directory,
      ...(entry !== undefined && { entry: resolve(io.directory, entry) }),
      ...(values.publish !== undefined && { publish: values.publish.map(parsePort) }),
      ...setup,
      onEvent(event) {
        // A port that was asked for and cannot be had is no reason to wait for a save.
        if (event.type === "failed" && isPortTaken(event.error)) quit.reject(event.error);
        else tell(event);
      },
    });
    const say = (text: string) => story?.say(text);
    using keys = readKeys(io.stdin, (key) => press(key, { loop, say, quit: quit.resolve }));
    if (keys !== undefined) say("h lists the keys");
    void loop.start();
    await quit.promise;
    say("stopping");
    return 0;
  },
});

const BARE_WARNING =
  "--bare: no VM, and so no isolation, no measured boot and this machine's own files and kernel; docs/dev.md lists what differs";

type Setup = Pick<LoopOptions, "createBackend" | "listen" | "more">;
type Given = Values<typeof OPTIONS>;

async function setUpMachine(directory: string, values: Given): Promise<Setup> {
  // Loaded where they are needed: without --bare this runs on Linux alone.
  const [{ MachineBackend }, { publishPort }, { findQemu }] = await Promise.all([
    import("../dev/machine.ts"),
    import("../launcher/publish.ts"),
    import("../emulator/qemu.ts"),
  ]);
  explainMissing(findQemu);
  const inspector = inspectorPort(values);
  const port = { vsockPort: PORT_INSPECTOR, strict: values["inspect-port"] !== undefined };
  return {
    createBackend: (events) =>
      new MachineBackend({
        ...events,
        local: localEgress(values),
        output: join(defaultCacheDirectory(directory), IMAGE),
      }),
    listen: (project) => (wanted) => {
      const { vsockPort } = wanted;
      const proxyProtocol = project.config.proxyProtocol && vsockPort !== PORT_INSPECTOR;
      return publishPort({ ...wanted, proxyProtocol });
    },
    ...(inspector !== undefined && { more: [{ ...port, port: inspector }] }),
  };
}

/** E_QEMU_MISSING with the other way out. */
function explainMissing(findQemu: () => string): void {
  try {
    findQemu();
  } catch (error) {
    if (!(error instanceof CloisterError) || error.code !== "E_QEMU_MISSING") throw error;
    const fix = `${error.fix ?? "Install QEMU"}. Or run it without a VM: \`cloister dev --bare\`.`;
    throw new CloisterError(error.code, error.message, { fix, cause: error });
  }
}

async function setUpPlain(values: Given): Promise<Setup> {
  const [{ PlainBackend }, { publishBare }] = await Promise.all([
    import("../dev/plain.ts"),
    import("../dev/bare/publish.ts"),
  ]);
  const inspector = inspectorPort(values);
  return {
    createBackend: (events) =>
      new PlainBackend({
        ...events,
        local: localEgress(values),
        ...(inspector !== undefined && { inspect: `127.0.0.1:${inspector}` }),
      }),
    listen: () => publishBare,
  };
}

function localEgress(values: Given): readonly LocalEgress[] {
  return (values["allow-local"] ?? []).map(parseLocalEgress);
}

function inspectorPort(values: Given): number | undefined {
  const port = values["inspect-port"];
  if (port !== undefined) return parseInteger("--inspect-port", port, 0, 65_535);
  return values.inspect === true ? INSPECTOR_PORT : undefined;
}

function parsePort(text: string): GatewayPort {
  const place = parsePublish(text);
  if ("port" in place) return { ...place, strict: true };
  throw refusal("--publish", text, "a TCP port: [ADDR:]PORT:VSOCKPORT, such as 8080:8080");
}

function isPortTaken(error: unknown): boolean {
  return error instanceof CloisterError && ["E_PORT_TAKEN", "E_PORT_UNUSABLE"].includes(error.code);
}

interface Hand {
  readonly loop: DevLoop;
  readonly say: (text: string) => void;
  readonly quit: () => void;
}

/** What keys do, by their letter. */
const KEYS: Readonly<Record<string, { readonly text: string; readonly act: (hand: Hand) => void }>> = {
  r: {
    text: "restart in a fresh VM; with --bare, in a fresh process",
    act: ({ loop }) => loop.restart({ fresh: true }),
  },
  b: { text: "build and run again", act: ({ loop }) => loop.restart({ fresh: false }) },
  h: { text: "this list", act: ({ say }) => say(keyList()) },
  q: { text: "quit, as Ctrl-C", act: ({ quit }) => quit() },
};

function keyList(): string {
  return ["keys:", ...Object.entries(KEYS).map(([key, { text }]) => `  ${key}  ${text}`)].join("\n");
}

function press(key: string, hand: Hand): void {
  KEYS[key]?.act(hand);
}
