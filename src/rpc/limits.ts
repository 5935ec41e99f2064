/** Bounds of the transports, the same on both mounts and of HTTP/1.1 and HTTP/2. docs/design/limits.md says why. */
export const LIMITS = {
  /** Larger messages are refused and audited. */
  messageBytes: 1 << 20,
  /** Of a call that needs no credential, which must not be packed either. */
  openMessageBytes: 4 << 10,
  /** Of a call without the credential that it may do without: a proxy passes on its client's headers. */
  anonymousMessageBytes: 64 << 10,
  /** Of a response; larger ones are a mistake of this program. */
  responseBytes: 32 << 20,
  headerBytes: 16 << 10,
  /** Calls that one connection may have under way: what a client sends beyond that waits at the client. */
  streamsPerConnection: 100,
  /** Calls that may be under way in all: more are refused at once, while the responses still come quickly. */
  callsUnderWay: 4096,
  connections: 10_000,
  /** Of one address, or one /64 of IPv6: five addresses at least are needed to fill the server. */
  connectionsPerAddress: 2_000,
  /** Requests of HTTP/1.1 that wait for the response before them; hardly any client sends even two. */
  pipelinedRequests: 32,
  /** How often what is unfinished is looked at. */
  tickMs: 1_000,
  /** From the connection to the end of TLS's handshake. */
  handshakeMs: 10_000,
  /** To the first byte, and to the preface and settings of HTTP/2. */
  silentConnectionMs: 10_000,
  /** From the first byte of a request's headers to their end. */
  headersMs: 10_000,
  /** From the end of the headers to the end of the message. */
  messageMs: 20_000,
  /** A message that comes slower than this many bytes a second, once the first seconds are over, does not come. */
  messageBytesPerSecond: 1 << 10,
  messageGraceMs: 5_000,
  /** What messages may hold that have not arrived whole, their headers included. */
  unfinishedBytes: { connection: 8 << 20, network: 16 << 20, all: 64 << 20 },
  /** What an unfinished message costs before its first byte. */
  unfinishedOverheadBytes: 4 << 10,
  /** Responses, or their parts, for which a peer gives no window. */
  unreadBytes: { connection: 32 << 20, network: 64 << 20, all: 256 << 20 },
  /** Packed messages that are unpacked at once: as many as Node has threads for it. */
  unpackedAtOnce: 4,
  /** Calls of health and reflection at once: a client has one Health/Watch a connection. */
  openCalls: { network: 200, all: 4_000 },
  /** A peer that reads nothing of what waits for it. */
  unreadResponseMs: 30_000,
  /** A connection of HTTP/1.1 between two requests. */
  http1IdleMs: 60_000,
  keepaliveMs: 60_000,
  keepaliveTimeoutMs: 20_000,
} as const;
