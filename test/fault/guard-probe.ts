/**
 * A guard that decides by itself: questions come as lines of JSON, answers go back likewise. A line with `clockMs` sets
 * the wall clock of this process, so much ahead of the machine's.
 */
import { createInterface } from 'node:readline';
import { Guard } from '../../clients/typescript/src/index.ts';

const [address = '', keyFile = ''] = process.argv.slice(2);
const guard = new Guard({ address, keyFile, local: true, deadlineMs: 1_000, onDecided: () => {} });

const machine = Date.now.bind(Date);

for await (const line of createInterface(process.stdin)) {
  const { key, scope, clockMs } = JSON.parse(line) as { key: string; scope: string; clockMs?: number };
  if (clockMs !== undefined) {
    Date.now = () => machine() + clockMs;
    process.stdout.write('{}\n');
    continue;
  }
  const header = (name: string) => (name === 'x-api-key' ? key : undefined);
  const { outcome, local } = await guard.route({ scope })({ header, peer: '10.1.2.3' });
  process.stdout.write(`${JSON.stringify({ outcome, local })}\n`);
}
await guard.close();
