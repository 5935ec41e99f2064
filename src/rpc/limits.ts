/** Bounds of the transports, the same on both mounts. */
export const LIMITS = {
  /** Larger messages are refused and audited. */
  messageBytes: 1 << 20,
  /** What a transport reads at most before it cuts a message off itself. */
  transportBytes: 4 << 20,
  headerBytes: 16 << 10,
  /** Calls that one connection may have under way: what a client sends beyond that waits at the client. */
  streamsPerConnection: 100,
  /** Calls that may be under way in all: more are refused at once, while the answers still come quickly. */
  callsUnderWay: 4096,
  connections: 10_000,
  /** A connection that says nothing, not even a request line. */
  silentConnectionMs: 10_000,
  keepaliveMs: 60_000,
  keepaliveTimeoutMs: 20_000,
} as const;
