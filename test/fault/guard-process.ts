/** A guard that decides by itself: node guard-process.ts ADDRESS KEY_FILE; asks come as messages. */
import { Guard } from '../../clients/typescript/src/index.ts';

const [address = '', keyFile = ''] = process.argv.slice(2);
const guard = new Guard({ address, keyFile, local: true, deadlineMs: 1_000, onDecided: () => {} });

process.on('message', async (message: { key: string; scope: string } | 'close') => {
  if (message === 'close') {
    await guard.close();
    process.exit(0);
  }
  const header = (name: string) => (name === 'x-api-key' ? message.key : undefined);
  const { outcome, local } = await guard.route({ scope: message.scope })({ header, peer: '10.1.2.3' });
  process.send?.({ outcome, local });
});
