import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as connectHttp2,
  type OutgoingHttpHeaders,
} from 'node:http2';

export interface RawAnswer {
  readonly httpStatus: number;
  /** grpc-status of headers or trailers. */
  readonly grpcStatus: number | undefined;
  readonly details: string;
  readonly body: Buffer;
}

/** gRPC written by hand, to send messages that no library sends. */
export class RawGrpc {
  readonly #session: ClientHttp2Session;

  constructor(port: number) {
    this.#session = connectHttp2(`http://127.0.0.1:${port}`);
  }

  close(): void {
    this.#session.destroy();
  }

  /** Sends the bytes as they are, frame header included. */
  call(path: string, bytes: Uint8Array, headers: OutgoingHttpHeaders = {}): Promise<RawAnswer> {
    return new Promise((resolve, reject) => {
      const stream = this.#request(path, headers);
      let httpStatus = 0;
      let grpc: { status?: unknown; message?: unknown } = {};
      const note = (from: Record<string, unknown>) => {
        if (from['grpc-status'] !== undefined)
          grpc = { status: from['grpc-status'], message: from['grpc-message'] };
      };
      const chunks: Buffer[] = [];
      stream.on('response', (answer) => {
        httpStatus = Number(answer[':status']);
        note(answer);
      });
      stream.on('trailers', note);
      stream.on('data', (chunk: Buffer) => chunks.push(chunk));
      stream.on('error', reject);
      stream.on('close', () =>
        resolve({
          httpStatus,
          grpcStatus: grpc.status === undefined ? undefined : Number(grpc.status),
          details: decodeURIComponent(String(grpc.message ?? '')),
          body: Buffer.concat(chunks),
        }),
      );
      stream.end(bytes);
    });
  }

  /** Begins a call and waits, without ever finishing its message: the grpc-status it ends with. */
  unfinished(path: string, part: Uint8Array, headers: OutgoingHttpHeaders): Promise<number> {
    return new Promise((resolve, reject) => {
      const stream = this.#request(path, headers);
      stream.on('response', (answer) => resolve(Number(answer['grpc-status'])));
      stream.on('error', reject);
      stream.write(part);
    });
  }

  /** Starts a call and closes the connection within its message. */
  abandon(path: string, part: Uint8Array, headers: OutgoingHttpHeaders): Promise<void> {
    return new Promise((resolve) => {
      const stream = this.#request(path, headers);
      stream.on('error', () => {});
      stream.on('close', () => resolve());
      stream.write(part, () => this.close());
    });
  }

  #request(path: string, headers: OutgoingHttpHeaders): ClientHttp2Stream {
    return this.#session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    });
  }
}

/** A gRPC frame around a message. */
export function frame(message: Uint8Array, claimed = message.length): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(claimed, 1);
  return Buffer.concat([head, message]);
}
