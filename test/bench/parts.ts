/** What does each part of a call cost, and is all of it faster than an empty handler? */
import { type Answered, alternate, type Bench, median, ratio, rounded, spread, table } from './measure.ts';
import { ALL_ON, apikeyd, handler, load, type Server } from './servers.ts';

const UNCOUNTED = {
  ANOMALY_MAX_REQUESTS_PER_MINUTE: '0',
  ANOMALY_MAX_ERROR_RATIO: '0',
  ANOMALY_MAX_IPS_PER_HOUR: '0',
};

export async function parts({ folder, quick }: Bench): Promise<Answered> {
  const calls = quick ? 18_000 : 60_000;
  let files = 0;
  const storeUrl = () => `sqlite:${folder}/parts-${files++}.db`;
  const { requiredScope, clientIp } = ALL_ON.request;
  const servers: Server[] = [await handler('empty', folder), await handler('bare', folder)];
  if (!quick) {
    const nothing = { folder, anonymous: true, settings: UNCOUNTED };
    const called = { folder, settings: UNCOUNTED };
    const limited = { ...called, key: ALL_ON.key };
    servers.push(
      await apikeyd({
        ...nothing,
        name: 'ValidateKey: decision and durable audit with its chain',
        storeUrl: storeUrl(),
      }),
      await apikeyd({ ...called, name: '+ the calling key', storeUrl: storeUrl() }),
      await apikeyd({
        ...called,
        name: '+ a required scope',
        storeUrl: storeUrl(),
        request: { requiredScope },
      }),
      await apikeyd({ ...limited, name: '+ a limit', storeUrl: storeUrl(), request: { requiredScope } }),
      await apikeyd({
        ...limited,
        name: '+ an address and its lockout',
        storeUrl: storeUrl(),
        request: ALL_ON.request,
      }),
    );
  }
  servers.push(await apikeyd({ ...ALL_ON, folder, name: '+ anomalies: all on', storeUrl: storeUrl() }));
  for (const server of servers) load(server, calls / 2);
  const figures = await alternate(servers, quick ? 5 : 7, (server) => load(server, calls));
  for (const server of servers) await server.stop();
  const [empty = [], bare = []] = figures;
  const all = figures.at(-1) ?? [];
  const rows = servers.map(({ name }, i) => {
    const of = figures[i] ?? [];
    const before = i > 2 ? (1e6 / median(of) - 1e6 / median(figures[i - 1] ?? [])).toFixed(1) : '';
    return [
      name,
      rounded(median(of)),
      spread(of),
      ratio(of, empty).toFixed(2),
      ratio(of, bare).toFixed(2),
      before,
    ];
  });
  return {
    facts: { allOnVsEmptyHandler: ratio(all, empty), allOnVsBareHandler: ratio(all, bare) },
    text: `## What each part costs

Each row has what the one above has, and more. Address of the caller: ${clientIp}; embedded store; metrics on.

${table(['what', 'calls/s', 'spread', 'of the empty handler', 'of the bare one', 'µs more'], rows)}`,
  };
}
