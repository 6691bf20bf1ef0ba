/** Signals. The kernel drops those of PID 1 that have no handler, so what they do to other processes is done here. */
import { constants } from "node:os";

const SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP"] as const;

/** `onDefault`: a signal came that the app does not listen to. `status`: 128 + its number, as a shell reports it. */
export function handleSignals(onDefault: (status: number) => void): void {
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      if (process.listenerCount(signal) === 1) onDefault(128 + constants.signals[signal]);
    });
  }
}
