/** A use of Node by name; it throws where Node behaves otherwise than on any machine. */
export type Checks = Readonly<Record<string, () => unknown>>;
