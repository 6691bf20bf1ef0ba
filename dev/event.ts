/** What the loop tells whoever watches. */
import type { EnclaveEvent } from "../launcher/event.ts";
import type { AppEnd, MeasuredRegisters } from "./backend.ts";
import type { OpenPort } from "./gateway.ts";

export type LoopEvent =
  | EnclaveEvent
  /** A build begins. `changed`: absolute paths; none at the start, and when it was asked for. */
  | { readonly type: "build"; readonly changed: readonly string[] }
  /** Nothing that runs differs. */
  | { readonly type: "unchanged" }
  /** It could not be built or started; what ran before runs on. */
  | { readonly type: "failed"; readonly error: unknown }
  | { readonly type: "warning"; readonly text: string }
  /** A machine starts, and why. */
  | { readonly type: "start"; readonly reason: string }
  | { readonly type: "measured"; readonly measurements: MeasuredRegisters }
  /** `tls`: the app is served with it. */
  | { readonly type: "published"; readonly ports: readonly OpenPort[]; readonly tls: boolean }
  /** The app of the last build serves. `elapsedMs`: since the change was seen, or the start. */
  | { readonly type: "serving"; readonly bundleMs: number; readonly elapsedMs: number }
  /** It ended. `replaced`: the one before it serves on. */
  | ({ readonly type: "ended"; readonly replaced: boolean } & AppEnd)
  /** Changes in this folder go unseen. */
  | { readonly type: "unwatched"; readonly folder: string; readonly code: string };
