/**
 * PID 1 of an image that was built for development: the same boot, then the app in a process that the parent can have
 * replaced. It lies over the /init of every other image, which has nothing of this.
 */
import { inspect } from "node:util";
import { PORT_DEVELOPMENT, PORT_INSPECTOR } from "../../format/abi.ts";
import {
  type DevelopmentReport,
  encodeReport,
  type Replacement,
  ReplacementDecoder,
} from "../../format/development.ts";
import { uptimeMs } from "../../linux/clock.ts";
import { bindSocket } from "../../linux/vsock.ts";
import type { VsockSocket } from "../../runtime/vsock.ts";
import { type Booted, boot, die, finish, phase } from "../boot.ts";
import { replaceFiles } from "./files.ts";
import { Generations } from "./generations.ts";
import { relayInspector } from "./inspector.ts";
import { markDevelopment } from "./mark.ts";

async function main(): Promise<void> {
  const booted = await boot();
  const { housekeeper, machine, nsm } = booted;
  await markDevelopment(nsm);
  const development = new Development(booted);
  const onError = (error: Error) => housekeeper.say(`development: ${error.message}`);
  machine.vsock.listen({ port: PORT_DEVELOPMENT, onError }, (stream) => development.accept(stream));
  machine.vsock.listen({ port: PORT_INSPECTOR, onError }, (stream) => {
    void relayInspector(stream, () => development.generations.inspector());
  });
  process.on("SIGTERM", () => void stop(booted, development));
  phase(housekeeper, "app");
  development.generations.begin(0);
}

async function stop({ housekeeper }: Booted, { generations }: Development): Promise<void> {
  const end = await generations.stop();
  finish(housekeeper, end?.status ?? 0, "signal");
}

/** The app's generations, and the parent that replaces them. */
class Development {
  readonly generations: Generations;
  readonly #booted: Booted;
  #stream: VsockSocket | undefined;
  /** A parent that connects is told what it missed. */
  #last: DevelopmentReport | undefined;

  constructor(booted: Booted) {
    this.#booted = booted;
    this.generations = new Generations({
      sockets: booted.configuration.ports.map((port) => bindSocket({ port })),
      say: (line) => booted.housekeeper.say(line),
      onReport: (report) => this.#report(report),
    });
  }

  /** One parent at a time: the newest. */
  accept(stream: VsockSocket): void {
    this.#stream?.destroy();
    this.#stream = stream;
    const decoder = new ReplacementDecoder();
    stream.on("data", (chunk: Buffer) => {
      try {
        for (const replacement of decoder.push(chunk)) this.#replace(replacement);
      } catch (error) {
        stream.destroy(error as Error);
      }
    });
    stream.on("error", (error) => this.#booted.housekeeper.say(`development: ${error.message}`));
    stream.on("end", () => stream.destroy());
    if (this.#last !== undefined) stream.write(encodeReport(this.#last));
  }

  #replace(replacement: Replacement): void {
    try {
      replaceFiles(this.#booted.machine.directory, replacement);
    } catch (error) {
      process.stderr.write(`${inspect(error)}\n`);
      const { generation } = replacement;
      const replaced = this.generations.isServing;
      this.#report({ type: "ended", generation, status: 1, reason: "load", replaced });
      // The parent sends what differs from what it sent before, which is not what lies here: no more of that.
      this.#stream?.end();
      return;
    }
    this.generations.begin(replacement.generation);
  }

  #report(report: DevelopmentReport): void {
    this.#last = report;
    if (this.#stream?.writable) this.#stream.write(encodeReport(report));
    if (report.type !== "serving") return;
    const { ports } = report;
    this.#booted.housekeeper.tell({ type: "ready", uptimeMs: uptimeMs(), ports });
  }
}

main().catch(die);
