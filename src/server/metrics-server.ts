import { createServer, type Server } from 'node:http';
import type { Metrics } from './metrics.ts';

/** The server on METRICS_ADDR: metrics, and /healthz and /readyz for probes without a client certificate. */
export function metricsServer(
  { registry }: Metrics,
  health: { readonly alive: boolean; readonly serving: boolean },
): Server {
  return createServer((request, response) => {
    const probe = (well: boolean) =>
      response.writeHead(well ? 200 : 503, { 'content-type': 'text/plain' }).end(well ? 'ok\n' : 'no\n');
    if (request.url === '/healthz') return probe(health.alive);
    if (request.url === '/readyz') return probe(health.serving);
    void registry.metrics().then((text) => {
      response.writeHead(200, { 'content-type': registry.contentType }).end(text);
    });
  });
}
