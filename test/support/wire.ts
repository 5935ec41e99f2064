import { type AddressInfo, createServer, type Socket, connect as tcpConnect } from 'node:net';

/** A wire to a database that a test can cut, hold and mend. */
export class Wire {
  readonly #sockets = new Set<Socket>();
  readonly #server = createServer((client) => this.#join(client));
  readonly #target: { host: string; port: number };
  #state: 'open' | 'cut' | 'held' = 'open';
  #slowMs = 0;
  #passed = 0;
  #cutAt = Number.POSITIVE_INFINITY;

  private constructor(target: { host: string; port: number }) {
    this.#target = target;
  }

  static async to(url: string): Promise<{ wire: Wire; url: string }> {
    const target = new URL(url);
    const wire = new Wire({ host: target.hostname, port: Number(target.port || 27_017) });
    await new Promise<void>((resolve) => wire.#server.listen(0, '127.0.0.1', resolve));
    target.hostname = '127.0.0.1';
    target.port = String((wire.#server.address() as AddressInfo).port);
    // The driver must not learn of other addresses that go round this wire.
    target.searchParams.set('directConnection', 'true');
    return { wire, url: target.toString() };
  }

  /** Ends every connection and refuses new ones. */
  cut(): void {
    this.#state = 'cut';
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Keeps connections but passes nothing on: a frozen server. */
  hold(): void {
    this.#state = 'held';
    for (const socket of this.#sockets) socket.pause();
  }

  /** Delays every response by this time. */
  slow(ms: number): void {
    this.#slowMs = ms;
  }

  /** Cuts the wire when the client sends its nth message from now on: that one does not arrive. */
  cutAtMessage(n: number): void {
    this.#passed = 0;
    this.#cutAt = n;
  }

  /** Messages of the client since cutAtMessage. */
  get passed(): number {
    return this.#passed;
  }

  mend(): void {
    this.#state = 'open';
    this.#slowMs = 0;
    this.#cutAt = Number.POSITIVE_INFINITY;
    for (const socket of this.#sockets) socket.resume();
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #join(client: Socket): void {
    if (this.#state === 'cut') {
      client.destroy();
      return;
    }
    const server = tcpConnect(this.#target);
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      this.#sockets.add(from);
      from.on('data', (chunk) => {
        if (from === client && ++this.#passed >= this.#cutAt) this.cut();
        else if (from === server && this.#slowMs > 0) setTimeout(() => to.write(chunk), this.#slowMs);
        else to.write(chunk);
      });
      from.on('error', () => {});
      from.on('close', () => {
        this.#sockets.delete(from);
        to.destroy();
      });
      if (this.#state === 'held') from.pause();
    }
  }
}
