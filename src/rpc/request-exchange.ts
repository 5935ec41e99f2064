import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ContextValues } from '@connectrpc/connect';
import type { UniversalServerRequest, UniversalServerResponse } from '@connectrpc/connect/protocol';
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from '@connectrpc/connect-node';
import type { Exchange } from './connect-mount.ts';
import { peerIpOf } from './peer.ts';

/** A request of HTTP/1.1 as Connect's handlers take it. */
export class RequestExchange implements Exchange {
  readonly path: string;
  readonly peerIp: string;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;

  constructor(request: IncomingMessage, response: ServerResponse) {
    this.path = (request.url ?? '').split('?', 1)[0] ?? '';
    this.peerIp = peerIpOf(request.socket.remoteAddress);
    this.#request = request;
    this.#response = response;
  }

  header(name: string): string | undefined {
    const value = this.#request.headers[name];
    return Array.isArray(value) ? value.join(',') : value;
  }

  request(values: ContextValues): UniversalServerRequest {
    return universalRequestFromNodeRequest(this.#request, this.#response, undefined, values);
  }

  respond(answer: UniversalServerResponse): Promise<void> {
    return universalResponseToNodeResponse(answer, this.#response);
  }

  abort(): void {
    this.#response.destroy();
  }
}
