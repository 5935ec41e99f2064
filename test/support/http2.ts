import { Http2Connection } from '../../src/transport/http2/connection.ts';
import { NodeHttp2Connection } from '../../src/transport/node-http2.ts';

/** Both servers of HTTP/2, by their name in the setting HTTP2_SERVER. */
export const HTTP2_SERVERS = { own: Http2Connection, node: NodeHttp2Connection } as const;
export type Http2ServerName = keyof typeof HTTP2_SERVERS;
export const HTTP2_SERVER_NAMES = Object.keys(HTTP2_SERVERS) as Http2ServerName[];
