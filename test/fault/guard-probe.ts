/** A guard that decides by itself: questions come as lines of JSON, answers go back likewise. */
import { createInterface } from 'node:readline';
import { Guard } from '../../clients/typescript/src/index.ts';

const [address = '', keyFile = ''] = process.argv.slice(2);
const guard = new Guard({ address, keyFile, local: true, deadlineMs: 1_000, onDecided: () => {} });

for await (const line of createInterface(process.stdin)) {
  const { key, scope } = JSON.parse(line) as { key: string; scope: string };
  const header = (name: string) => (name === 'x-api-key' ? key : undefined);
  const { outcome, local } = await guard.route({ scope })({ header, peer: '10.1.2.3' });
  process.stdout.write(`${JSON.stringify({ outcome, local })}\n`);
}
await guard.close();
