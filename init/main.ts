/** PID 1 of the enclave: the boot, then the app in this very process. */
import { uptimeMs } from "../linux/clock.ts";
import { boot, die, finish, phase } from "./boot.ts";
import { runApp } from "./run.ts";

async function main(): Promise<void> {
  const { housekeeper, ...place } = await boot();
  phase(housekeeper, "app");
  housekeeper.watchApp();
  await runApp(place, {
    say: (line) => housekeeper.say(line),
    onReady: (ports) => housekeeper.tell({ type: "ready", uptimeMs: uptimeMs(), ports }),
    finish: (status, reason) => finish(housekeeper, status, reason),
  });
}

main().catch(die);
