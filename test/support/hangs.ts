/** What has not come after so many milliseconds hangs: a bound for waiting on a busy machine, which says nothing of speed. */
export const HANGS_MS = 60_000;
