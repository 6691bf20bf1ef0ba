/** What happens to an enclave, as lines of text or of JSON. */
import { jsonOfLine } from "../format/log.ts";
import type { LogEvent } from "../launcher/logs.ts";
import type { SupervisorEvent } from "../launcher/supervisor.ts";
import { printable } from "./printable.ts";

export type Show = (event: SupervisorEvent) => void;

export function jsonEvents(stream: NodeJS.WritableStream): Show {
  return (event) => stream.write(`${JSON.stringify(event.type === "log" ? asValue(event) : event)}\n`);
}

/** A record whose line is a JSON object has it as the value `json`, in place of its text. */
function asValue({ text, ...event }: LogEvent): object {
  const json = jsonOfLine(text);
  return json === undefined ? { ...event, text } : { ...event, json };
}

/** A line of the app as it wrote it. */
const plainLine = ({ source, text }: LogEvent): string =>
  source === "init" ? `init: ${printable(text)}` : printable(text);

/** `verbose`: steps of the boot and init's own messages too. `line`: how a log record is shown. */
export function textEvents(stream: NodeJS.WritableStream, verbose: boolean, line = plainLine): Show {
  const say = (text: string) => stream.write(`${text}\n`);
  const seconds = (ms: number) => `${(ms / 1000).toFixed(2)} s`;
  return (event) => {
    switch (event.type) {
      case "log": {
        if (event.dropped > 0) say(`cloister: ${event.dropped} log records were dropped here`);
        if (event.source !== "init" || verbose) say(line(event));
        break;
      }
      case "lost":
        say(`cloister: ${event.events} log records found no room on the disk here`);
        break;
      case "fault":
        say(`cloister: control channel: ${printable(event.reason)}`);
        break;
      case "egress":
      case "publish":
        say(`cloister: ${printable(event.reason)}`);
        break;
      case "ready":
        say(`cloister: ready after ${seconds(event.elapsedMs)}`);
        break;
      case "stage":
        if (verbose) say(`cloister: ${event.stage} at ${seconds(event.elapsedMs)}`);
        break;
      case "phase":
        if (verbose) say(`cloister: enclave: ${event.phase} at ${seconds(event.uptimeMs)} of its uptime`);
        break;
      case "restart":
        say(`cloister: failure ${event.failures}; starting it again in ${seconds(event.delayMs)}`);
        break;
      case "exit":
        if (event.report.kind === "app")
          say(`cloister: exit status ${event.report.status} (${event.report.reason})`);
    }
  };
}
