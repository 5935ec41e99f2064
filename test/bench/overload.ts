/** What is left of the throughput when more is offered than can be served: an open loop by h2load. */
import { spawnSync } from 'node:child_process';
import { get } from 'node:http';
import { load, type Subject } from './servers.ts';

const SECONDS = 6;
const CONNECTIONS = [10, 40, 100];
const TIMES = [1, 2, 5];

/** A row for each load: served and refused a second, and the part of what it serves when asked one after the other. */
export async function overload(subject: Subject): Promise<string[]> {
  const capacity = load(subject, 100_000);
  const rows: string[] = [];
  for (const connections of CONNECTIONS) {
    for (const times of TIMES) {
      const rate = Math.round((capacity * times) / connections);
      const before = await calls(subject);
      const begun = Date.now();
      const args = ['-c', String(connections), '-m', '1000', '--rps', String(rate), '-D', String(SECONDS)];
      const headers = ['-H', 'content-type: application/grpc', '-H', 'te: trailers'];
      spawnSync('taskset', ['-c', '1', 'h2load', ...args, ...headers, ...subject.args, subject.url]);
      const seconds = (Date.now() - begun) / 1000;
      const after = await calls(subject);
      const served = (after.served - before.served) / seconds;
      const refused = (after.refused - before.refused) / seconds;
      const row = [
        connections,
        `${times} ×`,
        Math.round(served),
        Math.round(refused),
        (served / capacity).toFixed(2),
      ];
      process.stderr.write(`overload ${row.join(' ')}\n`);
      rows.push(`| ${row.join(' | ')} |`);
    }
  }
  return rows;
}

/** On a connection of its own: one that is kept may be closed by the other side at just this moment. */
function metricsOf(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    get({ port, host: '127.0.0.1', path: '/metrics', agent: false }, (response) => {
      const parts: Buffer[] = [];
      response.on('data', (part: Buffer) => parts.push(part));
      response.on('end', () => resolve(Buffer.concat(parts).toString()));
    }).on('error', reject);
  });
}

async function calls({ metricsPort }: Subject): Promise<{ served: number; refused: number }> {
  const text = await metricsOf(metricsPort);
  const of = (code: string) =>
    Number(
      new RegExp(
        `apikeyd_calls_total\\{method="apikey.v1.ApiKeyAuth/ValidateKey",code="${code}"\\} (\\d+)`,
      ).exec(text)?.[1] ?? 0,
    );
  return { served: of('OK'), refused: of('RESOURCE_EXHAUSTED') };
}
