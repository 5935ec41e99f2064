import { render } from 'preact';
import { useEffect } from 'preact/hooks';
import { alerts, watchAlerts } from './alerts.ts';
import { AuditPage } from './pages/audit.tsx';
import { CreatePage } from './pages/create.tsx';
import { ImportPage } from './pages/import.tsx';
import { KeyPage } from './pages/key.tsx';
import { KeysPage } from './pages/keys.tsx';
import { NoticesPage } from './pages/notices.tsx';
import { OverviewPage } from './pages/overview.tsx';
import { SignIn } from './pages/sign-in.tsx';
import { TokensPage } from './pages/tokens.tsx';
import { TryPage } from './pages/try.tsx';
import { Link, news, refresh } from './parts.tsx';
import { place } from './router.ts';
import { resume, type Session, session, signOut, watchIdleness } from './session.ts';

const PAGES = [
  { path: '', name: 'Overview', page: OverviewPage, loads: true },
  { path: 'keys', name: 'Keys', page: KeysPage, loads: true },
  { path: 'audit', name: 'Audit', page: AuditPage, loads: true },
  { path: 'try', name: 'Try a key', page: TryPage, loads: false },
  { path: 'notices', name: 'Alerts', page: NoticesPage, loads: true },
  { path: 'tokens', name: 'Tokens', page: TokensPage, loads: true },
] as const;

/** The page of the current address, its entry in the menu, and whether it shows what it has loaded from the server. */
function pageOf(path: string, current: Session) {
  if (path === 'keys/new') return { menu: 'keys', title: 'New key', body: <CreatePage session={current} /> };
  if (path === 'keys/import')
    return { menu: 'keys', title: 'Import keys', body: <ImportPage session={current} /> };
  if (path.startsWith('keys/'))
    return {
      menu: 'keys',
      title: 'Key',
      body: <KeyPage session={current} id={path.slice(5)} key={path} />,
      loads: true,
    };
  const found = PAGES.find((one) => one.path === path);
  if (found === undefined)
    return { menu: '', title: 'Not found', body: <p class="empty">There is no page at this address.</p> };
  const Page = found.page;
  return { menu: found.path, title: found.name, body: <Page session={current} />, loads: found.loads };
}

function Shell({ current }: { current: Session }) {
  const { menu, title, body, loads = false } = pageOf(place.value.path, current);
  useEffect(() => watchAlerts(current.clients), [current]);
  useEffect(() => {
    document.title = `${title} · apikeyd`;
  }, [title]);
  return (
    <div class="shell">
      <a class="skip" href="#content">
        Skip to the content
      </a>
      <header class="side">
        <div class="brand">apikeyd</div>
        <nav aria-label="Main">
          {PAGES.map(({ path, name }) => (
            <Link key={path} to={path} aria-current={menu === path ? 'page' : undefined}>
              {name}
              {path === 'notices' && alerts.value.unseen > 0 && (
                <span class="count"> {alerts.value.unseen > 99 ? '99+' : alerts.value.unseen}</span>
              )}
            </Link>
          ))}
        </nav>
        <div class="who">
          <div title={current.me.keyId}>{current.me.name}</div>
          <small>{current.admin ? 'may change everything' : 'may look only'}</small>
          <button type="button" onClick={() => signOut()}>
            Sign out
          </button>
        </div>
      </header>
      <main id="content" tabIndex={-1}>
        <div class="bar">
          <h1>{title}</h1>
          {loads && (
            <button type="button" onClick={refresh}>
              Refresh
            </button>
          )}
        </div>
        {body}
      </main>
      <p class={news.value === '' ? 'news unseen' : 'news'} role="status">
        {news.value}
      </p>
    </div>
  );
}

function App() {
  return session.value === undefined ? <SignIn /> : <Shell current={session.value} />;
}

watchIdleness();
const root = document.getElementById('app');
if (root !== null) void resume().finally(() => render(<App />, root));
