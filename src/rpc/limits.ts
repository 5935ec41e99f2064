/** Bounds of the transports, the same on both mounts. */
export const LIMITS = {
  /** Larger messages are refused and audited. */
  messageBytes: 1 << 20,
  /** What a transport reads at most before it cuts a message off itself. */
  transportBytes: 4 << 20,
  headerBytes: 16 << 10,
  streamsPerConnection: 1024,
  connections: 10_000,
  /** A connection that says nothing, not even a request line. */
  silentConnectionMs: 10_000,
  keepaliveMs: 60_000,
  keepaliveTimeoutMs: 20_000,
} as const;
