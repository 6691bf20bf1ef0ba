/** Is the day before which a release's enclaves believe no clock (`FLOOR_MS` of init/time/enclave.ts) that of the release? */

const DAY_MS = 86_400_000;
/** Where there is no NSM a parent may set the clock back to the floor: so far before the release it may lie, and no more. */
const AGE_MAX_MS = 30 * DAY_MS;

/** What is wrong with the floor of a release whose last commit has this time; undefined: nothing. Unix milliseconds. */
export function floorProblem(floorMs: number, commitMs: number): string | undefined {
  const ageMs = commitMs - floorMs;
  // A floor that is still to come would have every clock refused.
  if (ageMs >= 0 && ageMs <= AGE_MAX_MS) return undefined;
  const [floor, earliest, latest] = [floorMs, commitMs - AGE_MAX_MS, commitMs].map(day);
  return `init/time/enclave.ts: FLOOR_MS: got ${floor}, expected ${earliest} to ${latest}, the day of the last commit`;
}

function day(unixMs: number): string {
  return new Date(unixMs).toISOString().slice(0, 10);
}
