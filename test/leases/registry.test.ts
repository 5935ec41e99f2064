// If this fails, a change on MongoDB returns while a guard of this process still decides by facts from before it.
import { expect, inject } from 'vitest';
import { MongoDatabase } from '../../src/store/mongo/database.ts';
import { inTime } from '../../src/store/mongo/errors.ts';
import { Registry } from '../../src/store/mongo/registry.ts';
import { TestClock } from '../support/clock.ts';
import { requires } from '../support/requires.ts';
import { freshDatabase } from '../support/server.ts';

const LEASE_MS = 100;

const name = 'a process waits for guards of its own, and stays registered until its last lease is over';
requires('mongodb').it(name, {}, async () => {
  const { url, drop } = freshDatabase('mongo', inject('mongoUri'));
  const database = await MongoDatabase.connect(url);
  const clock = new TestClock();
  const waits: number[] = [];
  const registry = new Registry(database, 'p', LEASE_MS, true, clock, (ms) => waits.push(ms));
  try {
    await inTime((limits) => registry.renew(limits));
    await registry.waitForOthers(false);
    // Before its first lease, too: until the next poll it would lend one without knowing the change.
    await registry.waitForOthers(true);
    expect(waits).toEqual([0, LEASE_MS * 1.2 + 20]);
    registry.lent(LEASE_MS);
    const entries = () => database.meta.countDocuments({ _id: 'process:p' });
    const leaving = registry.leave();
    expect(await entries()).toBe(1);
    await leaving;
    expect(await entries()).toBe(0);
    expect(new Registry(database, 'p', LEASE_MS, false, clock).lends).toBe(false);
  } finally {
    await database.close();
    await drop();
  }
});
