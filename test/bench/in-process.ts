/** A peer that runs inside its caller's process: how often a second, on one core, without a network. */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { pathToFileURL } from 'node:url';

const [, , peer = '', folder = ''] = process.argv;
const CALLS = 8_000;
const load = (name: string) =>
  import(pathToFileURL(createRequire(join(folder, 'package.json')).resolve(name)).href);
const DAY_MS = 86_400_000;

/** One key with one limit, verified. */
async function betterAuth(): Promise<() => Promise<void>> {
  const { betterAuth: make } = await load('better-auth');
  const { memoryAdapter } = await load('better-auth/adapters/memory');
  const { apiKey } = await load('@better-auth/api-key');
  const limit = { rateLimitMax: 1e9, rateLimitTimeWindow: DAY_MS };
  const { api } = make({
    secret: 'bench '.repeat(8),
    baseURL: 'http://localhost',
    database: memoryAdapter({ user: [], session: [], account: [], verification: [], apikey: [] }),
    emailAndPassword: { enabled: true },
    plugins: [apiKey({ rateLimit: { enabled: true, timeWindow: DAY_MS, maxRequests: 1e9 } })],
    logger: { disabled: true },
    telemetry: { enabled: false },
  });
  const body = { email: 'bench@example.com', password: 'password1234', name: 'bench' };
  const { user } = await api.signUpEmail({ body });
  const { key } = await api.createApiKey({ body: { userId: user.id, name: 'bench', ...limit } });
  return async () => {
    const { valid } = await api.verifyApiKey({ body: { key } });
    if (valid !== true) throw new Error('not valid');
  };
}

/** One limit, taken from; no key, no scope, no audit. */
async function rateLimiter(): Promise<() => Promise<void>> {
  const { RateLimiterMemory } = await import('rate-limiter-flexible');
  const limiter = new RateLimiterMemory({ points: 1_000_000_000, duration: 86_400 });
  return async () => void (await limiter.consume('key'));
}

const ask = await (peer === 'better-auth' ? betterAuth() : rateLimiter());
for (let i = 0; i < CALLS; i++) await ask();
const begun = performance.now();
for (let i = 0; i < CALLS; i++) await ask();
process.stdout.write(`${CALLS / ((performance.now() - begun) / 1000)}\n`);
