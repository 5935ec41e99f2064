import { type Client, Code, ConnectError, createClient, type Interceptor } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-web';
import { signal } from '@preact/signals';
import { ApiKeyAdmin } from '../../gen/apikey/v1/admin_pb.ts';
import { ApiKeyAuth, type WhoAmIResponse } from '../../gen/apikey/v1/auth_pb.ts';
import { ApiKeyIntegrations } from '../../gen/apikey/v1/integrations_pb.ts';
import { askReadiness } from './server-clock.ts';

const STORED = 'apikeyd.key';
const IDLE_MS = 15 * 60_000;

export interface Clients {
  readonly auth: Client<typeof ApiKeyAuth>;
  readonly admin: Client<typeof ApiKeyAdmin>;
  readonly integrations: Client<typeof ApiKeyIntegrations>;
}

export interface Session {
  readonly me: WhoAmIResponse;
  readonly clients: Clients;
  /** Whether the key may change things: it has `apikeys:admin`, and not only `apikeys:audit`. */
  readonly admin: boolean;
}

/** The signed-in key. Its secret is kept in the closure of `clients` and, if the user wants, for this tab. */
export const session = signal<Session | undefined>(undefined);
/** Why the session ended; shown on the sign-in page. */
export const farewell = signal('');

let lastActive = Date.now();

function clientsFor(key: string): Clients {
  const authorize: Interceptor = (next) => async (request) => {
    request.header.set('authorization', `Bearer ${key}`);
    try {
      return await next(request);
    } catch (error) {
      endIfRefused(error);
      throw error;
    }
  };
  const transport = createConnectTransport({
    baseUrl: location.origin,
    useBinaryFormat: true,
    interceptors: [authorize],
  });
  return {
    auth: createClient(ApiKeyAuth, transport),
    admin: createClient(ApiKeyAdmin, transport),
    integrations: createClient(ApiKeyIntegrations, transport),
  };
}

/** Ends the session when its key is revoked or has expired. */
export function endIfRefused(error: unknown): void {
  if (session.value === undefined || ConnectError.from(error).code !== Code.Unauthenticated) return;
  signOut('Your key no longer works: it was revoked, has expired, or its secret was replaced.');
}

const CONTROL = 'apikeys';

function holds(scopes: readonly string[], scope: string): boolean {
  return scopes.some((grant) => grant === scope || grant === `${CONTROL}:*`);
}

/** @throws ConnectError when the key does not work; Error when it may not use the console. */
export async function signIn(key: string, keepForTab: boolean): Promise<void> {
  const clients = clientsFor(key);
  const me = await clients.auth.whoAmI({});
  const admin = holds(me.scopes, `${CONTROL}:admin`);
  if (!admin && !holds(me.scopes, `${CONTROL}:audit`))
    throw new Error(
      'This key works, but the console needs the scope apikeys:admin, or apikeys:audit to look.',
    );
  if (keepForTab) sessionStorage.setItem(STORED, key);
  await askReadiness();
  farewell.value = '';
  lastActive = Date.now();
  session.value = { me, clients, admin };
}

export function signOut(reason = ''): void {
  sessionStorage.removeItem(STORED);
  farewell.value = reason;
  session.value = undefined;
}

/** Signs in again after a reload, if the key was kept for this tab. */
export async function resume(): Promise<void> {
  const key = sessionStorage.getItem(STORED);
  if (key === null) return;
  try {
    await signIn(key, true);
  } catch (error) {
    if (ConnectError.from(error).code === Code.Unauthenticated) signOut('Your key no longer works.');
    else farewell.value = 'The server could not be asked. Reload the page to try again.';
  }
}

/** Signs out after 15 minutes without input. */
export function watchIdleness(): void {
  for (const event of ['pointerdown', 'keydown']) addEventListener(event, () => (lastActive = Date.now()));
  setInterval(() => {
    if (session.value !== undefined && Date.now() - lastActive > IDLE_MS)
      signOut('You were signed out after 15 minutes without activity.');
  }, 5_000);
}
