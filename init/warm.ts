/** What nearly every app needs and Node loads when it is first asked for: while a process waits for its app it costs nobody time. */
export function warmUp(): void {
  void globalThis.Request;
  process.getBuiltinModule("node:http");
}
