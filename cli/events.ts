/** What happens to an enclave, as lines of text or of JSON. */
import type { SupervisorEvent } from "../launcher/supervisor.ts";
import { printable } from "./printable.ts";

export type Show = (event: SupervisorEvent) => void;

export function jsonEvents(stream: NodeJS.WritableStream): Show {
  return (event) => stream.write(`${JSON.stringify(event)}\n`);
}

/** `verbose`: steps of the boot and init's own messages too. */
export function textEvents(stream: NodeJS.WritableStream, verbose: boolean): Show {
  const say = (text: string) => stream.write(`${text}\n`);
  const seconds = (ms: number) => `${(ms / 1000).toFixed(2)} s`;
  return (event) => {
    switch (event.type) {
      case "log": {
        if (event.dropped > 0) say(`cloister: ${event.dropped} log records were dropped here`);
        if (event.source === "init" && !verbose) break;
        const shown = printable(event.text);
        say(event.source === "init" ? `init: ${shown}` : shown);
        break;
      }
      case "lost":
        say(`cloister: ${event.events} log records found no room on the disk here`);
        break;
      case "fault":
        say(`cloister: control channel: ${event.reason}`);
        break;
      case "egress":
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
