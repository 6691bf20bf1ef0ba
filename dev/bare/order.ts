/** How a bare enclave's process is started, as both sides know it. */

/** Descriptor that it tells its parent on. */
export const TELLS = 3;
/** Descriptor that is open for as long as its parent lives. */
export const COMMANDS = 4;
