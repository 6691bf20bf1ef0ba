/** The process of one detached enclave: its order comes on a descriptor, from then on its signals and its socket do. */
import { Socket } from "node:net";
import { recordError } from "../launcher/service.ts";
import type { Supervisor } from "../launcher/supervisor.ts";
import { STOP_DEADLINE_MS } from "./deadline.ts";
import { CHANNEL_DESCRIPTOR, type Notice } from "./detach.ts";
import { beginOrder, type Order, openRegistry } from "./order.ts";

const channel = new Socket({ fd: CHANNEL_DESCRIPTOR, allowHalfOpen: true });
channel.on("error", () => {});
const tell = (notice: Notice) => channel.writable && channel.write(`${JSON.stringify(notice)}\n`);

let supervisor: Supervisor | undefined;
let isOver = false;
/** The parent shuts down, or whoever started us went away before the app served. */
function shutDown(): void {
  isOver = true;
  void supervisor?.stop({ by: "shutdown", deadlineMs: STOP_DEADLINE_MS });
}

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    // The second one means now: the enclave dies with this process.
    if (isOver) process.exit(1);
    shutDown();
  });
}
process.once("uncaughtException", (error) => {
  supervisor?.fail(error);
  tell({ error: recordError(error) });
  process.exit(1);
});

async function supervise(order: Order): Promise<void> {
  supervisor = await beginOrder(order, openRegistry(process), true, {
    onEvent: (event) => tell({ event }),
    onCommand: (command) => tell({ command }),
  });
  if (isOver) shutDown();
  await supervisor.ready;
  channel.removeListener("end", shutDown);
  tell({ ready: supervisor.record });
}

function readOrder(): Promise<Order> {
  const { promise, resolve } = Promise.withResolvers<Order>();
  let text = "";
  channel.setEncoding("utf8");
  channel.on("data", (chunk: string) => {
    text += chunk;
    if (text.endsWith("\n")) resolve(JSON.parse(text) as Order);
  });
  return promise;
}

channel.on("end", shutDown);
try {
  await supervise(await readOrder());
} catch (error) {
  tell({ error: recordError(error) });
}
channel.end();
await supervisor?.ended;
process.exit();
