/** Bounds of the transports, the same on both mounts and for HTTP/1.1 and HTTP/2. Explained in docs/design/limits.md. */
export const LIMITS = {
  /** Larger messages are refused and audited. */
  messageBytes: 1 << 20,
  /** Size of a message to a method that needs no credential; it must not be compressed, either. */
  openMessageBytes: 4 << 10,
  /** Size of a message sent without its optional credential: a proxy passes on its client's headers. */
  anonymousMessageBytes: 64 << 10,
  /** Size of a response; a larger one is a bug of this program. */
  responseBytes: 32 << 20,
  headerBytes: 16 << 10,
  /** Calls in flight per connection: a client queues further calls itself. */
  streamsPerConnection: 100,
  /** Calls in flight in all: more are refused at once, while responses are still fast. */
  callsUnderWay: 4096,
  connections: 10_000,
  /** Connections per address or IPv6 /64: at least five addresses are needed to fill the server. */
  connectionsPerAddress: 2_000,
  /** Pipelined HTTP/1.1 requests that wait for an earlier response; hardly any client sends even two. */
  pipelinedRequests: 32,
  /** How often unfinished connections and messages are checked. */
  tickMs: 1_000,
  /** From the connection to the end of the TLS handshake. */
  handshakeMs: 10_000,
  /** From the connection to the first byte, and to the HTTP/2 preface and settings. */
  silentConnectionMs: 10_000,
  /** From the first byte of a request's headers to their end. */
  headersMs: 10_000,
  /** From the end of the headers to the end of the message. */
  messageMs: 20_000,
  /** A message that arrives slower than this many bytes a second, after messageGraceMs, is refused. */
  messageBytesPerSecond: 1 << 10,
  messageGraceMs: 5_000,
  /** Bytes of messages that have not fully arrived, including headers. */
  unfinishedBytes: { connection: 8 << 20, network: 16 << 20, all: 64 << 20 },
  /** Bytes counted for an unfinished message before its first byte. */
  unfinishedOverheadBytes: 4 << 10,
  /** Bytes of responses for which a peer grants no window. */
  unreadBytes: { connection: 32 << 20, network: 64 << 20, all: 256 << 20 },
  /** Compressed messages decompressed at once: the number of Node's threads for it. */
  unpackedAtOnce: 4,
  /** Calls of health and reflection in flight: a client has one Health/Watch per connection. */
  openCalls: { network: 200, all: 4_000 },
  /** For a peer that does not read its pending response. */
  unreadResponseMs: 30_000,
  /** Idle time of an HTTP/1.1 connection between two requests. */
  http1IdleMs: 60_000,
  keepaliveMs: 60_000,
  keepaliveTimeoutMs: 20_000,
} as const;
