/** How long a stopped app may take before the enclave is terminated, milliseconds. */
export const STOP_DEADLINE_MS = 10_000;
