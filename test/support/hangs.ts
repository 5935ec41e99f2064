/** After so many milliseconds a wait counts as hanging, even on a busy machine; this is no measure of speed. */
export const HANGS_MS = 60_000;
