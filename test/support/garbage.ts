import { setTimeout as delay } from 'node:timers/promises';
import type { ServerProcess } from './process.ts';

/** For a server whose garbage is to be collected: its inspector listens on a port that is free. */
export const INSPECTABLE = { NODE_OPTIONS: '--inspect-port=127.0.0.1:0' };

/**
 * Makes the server collect its garbage. Memory that libraries hold for objects of JavaScript, such as closed TLS connections,
 * is given back only then, so that only the level afterwards tells a leak.
 */
export async function collectGarbage({
  child,
  output,
}: Pick<ServerProcess, 'child' | 'output'>): Promise<void> {
  child.kill('SIGUSR1');
  let url: string | undefined;
  for (let look = 0; url === undefined && look < 200; look++) {
    url = /ws:\/\/127\.0\.0\.1:\S+/.exec(output())?.[0];
    if (url === undefined) await delay(50);
  }
  if (url === undefined) throw new Error('the inspector of the server does not listen');
  const socket = new WebSocket(url);
  try {
    await new Promise((resolve, reject) => {
      socket.onopen = resolve;
      socket.onerror = reject;
    });
    const answered = new Promise((resolve) => {
      socket.onmessage = resolve;
    });
    socket.send(JSON.stringify({ id: 1, method: 'HeapProfiler.collectGarbage' }));
    await answered;
  } finally {
    socket.close();
  }
}
