/** Imported when it is asked for. */
export const loaded = "late";
