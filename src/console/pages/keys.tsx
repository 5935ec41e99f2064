import {
  type KeyStatus,
  KeyStatusSchema,
  type KeyType,
  KeyTypeSchema,
} from '../../../gen/apikey/v1/key_pb.ts';
import { Field, Link, Problem, State, Table, useLoaded } from '../parts.tsx';
import { go, place, setQuery } from '../router.ts';
import type { Session } from '../session.ts';
import { ago, choicesOf, timeOf, wordOf } from '../words.ts';

/** One page of 50 keys; the filters and the page are in the address. */
export function KeysPage({ session }: { session: Session }) {
  const { query } = place.value;
  const read = (name: string) => query.get(name) ?? '';
  const { data, error, loading } = useLoaded(
    (signal) =>
      session.clients.admin.listKeys(
        {
          ownerId: read('owner'),
          keyType: Number(read('type')) as KeyType,
          status: Number(read('status')) as KeyStatus,
          query: read('q'),
          pageToken: read('page'),
        },
        { signal },
      ),
    query.toString(),
  );
  const filter = (name: string) => (value: string) => setQuery({ [name]: value, page: '' });
  const next = new URLSearchParams(query);
  next.set('page', data?.nextPageToken ?? '');
  return (
    <>
      <div class="bar">
        <div class="filters">
          <Field label="Name or id begins with" name="q" value={read('q')} set={filter('q')} />
          <Field label="Owner" name="owner" value={read('owner')} set={filter('owner')} />
          <Field
            label="Type"
            name="type"
            value={read('type')}
            set={filter('type')}
            choices={choicesOf(KeyTypeSchema)}
            none="any"
          />
          <Field
            label="Status"
            name="status"
            value={read('status')}
            set={filter('status')}
            choices={choicesOf(KeyStatusSchema)}
            none="any"
          />
        </div>
        {session.admin && (
          <div class="row">
            <button type="button" onClick={() => go('keys/import')}>
              Import …
            </button>
            <button type="button" class="main" onClick={() => go('keys/new')}>
              New key
            </button>
          </div>
        )}
      </div>
      <Problem error={error} />
      {data === undefined ? (
        error === undefined && <p class="empty">Loading …</p>
      ) : (
        <div aria-busy={loading}>
          <Table
            caption="keys"
            head={['Name', 'Status', 'Type', 'Owner', 'Last used', 'Expires']}
            empty="No key matches."
          >
            {data.keys.map((key) => (
              <tr key={key.id}>
                <th scope="row">
                  <Link to={`keys/${key.id}`}>{key.name}</Link>
                  <small class="id">{key.id}</small>
                </th>
                <td>
                  <State>{wordOf(KeyStatusSchema, key.status)}</State>
                </td>
                <td>{wordOf(KeyTypeSchema, key.keyType)}</td>
                <td>{key.ownerId}</td>
                <td>{ago(key.lastUseTime)}</td>
                <td>{timeOf(key.expireTime)}</td>
              </tr>
            ))}
          </Table>
          <nav class="row" aria-label="Pages">
            {read('page') !== '' && (
              <button type="button" onClick={() => history.back()}>
                Back
              </button>
            )}
            {data.nextPageToken !== '' && (
              <button type="button" onClick={() => go('keys', next)}>
                Next 50
              </button>
            )}
          </nav>
        </div>
      )}
    </>
  );
}
