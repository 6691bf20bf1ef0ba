/**
 * Guest half of telemetry.test.ts: an app with OpenTelemetry, set up by its environment variables alone, that is ready when
 * it says so: here, when gate.test lets it.
 */
import { createServer } from "node:http";
import { trace } from "@opentelemetry/api";
import { NodeSDK } from "@opentelemetry/sdk-node";
import { ready } from "cloister/runtime";

new NodeSDK().start();
const tracer = trace.getTracer("telemetry");

createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://app");
  const span = tracer.startSpan(`${request.method} ${pathname}`);
  const blockMs = Number(searchParams.get("block"));
  if (blockMs > 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, blockMs);
  span.end();
  response.end("served\n");
}).listen(8080, async () => {
  await fetch("http://gate.test/");
  await fetch("http://denied.test/").catch(() => {});
  ready();
  ready();
});
