import { signal } from '@preact/signals';

const BASE = '/console';

export interface Place {
  /** Below /console: '' for the overview, 'keys', 'keys/uid-apikey-…'. */
  readonly path: string;
  readonly query: URLSearchParams;
}

function here(): Place {
  return {
    path: location.pathname.slice(BASE.length).replace(/^\/|\/$/g, ''),
    query: new URLSearchParams(location.search),
  };
}

export const place = signal(here());

/** Set by a page with unsaved content: called before another page is shown. */
let guard: (() => boolean) | undefined;

export function guardLeaving(mayLeave: (() => boolean) | undefined): void {
  guard = mayLeave;
}

addEventListener('popstate', () => {
  if (guard !== undefined && !guard()) {
    history.pushState(null, '', hrefOf(place.value.path, place.value.query));
    return;
  }
  guard = undefined;
  place.value = here();
});
addEventListener('beforeunload', (event) => {
  if (guard !== undefined) event.preventDefault();
});

export function hrefOf(path: string, query = new URLSearchParams()): string {
  const text = query.toString();
  return `${BASE}/${path}${text === '' ? '' : `?${text}`}`;
}

export function go(path: string, query?: URLSearchParams, replace = false): void {
  if (guard !== undefined && !guard()) return;
  guard = undefined;
  history[replace ? 'replaceState' : 'pushState'](null, '', hrefOf(path, query));
  place.value = here();
  if (!replace) scrollTo(0, 0);
}

/** The same page with other filters, which are in the address. */
export function setQuery(changes: Readonly<Record<string, string>>): void {
  const query = new URLSearchParams(place.value.query);
  for (const [name, value] of Object.entries(changes)) {
    if (value === '') query.delete(name);
    else query.set(name, value);
  }
  go(place.value.path, query);
}
