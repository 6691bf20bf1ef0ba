/** What PID 1 of a development image and a generation of the app say to each other, one JSON value a line. */
import type { ExitReason } from "../../format/control.ts";

/** The descriptor of the generation's end. */
export const CHANNEL = 3;
/** Where the packer puts the bundle of generation.ts. */
export const SCRIPT = "/lib/generation.cjs";

/**
 * The first of the descriptors that every generation has: one socket for each port of the configuration, bound by PID 1, in
 * the order of the ports in its arguments. A socket that stays open loses no connection between two generations.
 */
export const SOCKETS = 4;

export type ToGeneration =
  /** Load the app. */
  | { readonly type: "begin" }
  /** The ports are yours. */
  | { readonly type: "serve" }
  /** Let go of the ports, and end as by SIGTERM. */
  | { readonly type: "retire" }
  /** Say where the inspector listens; open it first. */
  | { readonly type: "inspect" };

export type FromGeneration =
  /** Loaded: it waits for the ports. */
  | { readonly type: "loaded" }
  /** Ready, and the ports are open. */
  | { readonly type: "serving"; readonly ports: readonly number[] }
  /** The ports are free. */
  | { readonly type: "retired" }
  | { readonly type: "inspector"; readonly port: number }
  /** A line for the log. */
  | { readonly type: "say"; readonly line: string }
  /** The last one. */
  | { readonly type: "end"; readonly status: number; readonly reason: ExitReason };
