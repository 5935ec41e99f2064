/** A process of its own, so that what an attack costs its attacker slows nobody else down. */
import { Attacker, type Order } from './attack.ts';
import { ATTACKS } from './catalogue.ts';

process.on('message', (order: Order) => {
  const attacker = new Attacker(order);
  const attack = ATTACKS.find(({ name }) => name === order.name);
  void Promise.resolve(attack?.run(attacker)).then(
    () => {
      attacker.end();
      process.send?.({ failure: attack === undefined ? 'no such attack' : '' });
    },
    (error: unknown) => {
      attacker.end();
      process.send?.({ failure: String(error) });
    },
  );
});
