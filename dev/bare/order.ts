/** How a bare enclave's process is started, as both sides know it. */

/** Descriptor that it tells its parent on. */
export const TELLS = 3;
/** Descriptor that it gets its order on, and that is open for as long as its parent lives. */
export const COMMANDS = 4;

/** One line of JSON: the app lies in the folder, run it. All else that may differ between two runs lies there too. */
export interface Order {
  /** HOST:PORT where Node's inspector is to listen. */
  readonly inspect?: string;
}
