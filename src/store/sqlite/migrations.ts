/** Numbered and forward only; each runs once, in one transaction with the update of the version. */
export const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE api_key_meta (id TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
  INSERT INTO api_key_meta VALUES ('revision', 0);

  CREATE TABLE api_key_changes (
    revision INTEGER PRIMARY KEY,
    key_id TEXT NOT NULL,
    change TEXT NOT NULL
  ) STRICT;

  CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    owner_id TEXT NOT NULL,
    key_type TEXT NOT NULL,
    secrets TEXT NOT NULL,
    hint TEXT NOT NULL,
    scopes TEXT NOT NULL,
    rate_limits TEXT NOT NULL,
    rate_limit_bucket TEXT NOT NULL,
    ip_allowlist TEXT NOT NULL,
    metadata TEXT NOT NULL,
    disabled INTEGER NOT NULL,
    create_time INTEGER NOT NULL,
    expire_time INTEGER,
    expired INTEGER NOT NULL,
    rotation TEXT,
    rotation_expire_time INTEGER,
    rotate_every_ms INTEGER,
    rotation_due_time INTEGER,
    revoke_time INTEGER,
    revoke_reason TEXT,
    revoke_note TEXT NOT NULL,
    last_use_time INTEGER,
    request_id TEXT UNIQUE,
    etag TEXT NOT NULL,
    revision INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX api_keys_by_create ON api_keys (create_time, id);
  CREATE INDEX api_keys_by_owner ON api_keys (owner_id, create_time, id);

  CREATE INDEX api_keys_by_rotation_expire ON api_keys (rotation_expire_time, id) WHERE rotation_expire_time NOT NULL;
  CREATE INDEX api_keys_by_rotation_due ON api_keys (rotation_due_time, id) WHERE rotation_due_time NOT NULL;
  CREATE INDEX api_keys_by_expire ON api_keys (expire_time, id) WHERE expire_time NOT NULL;

  CREATE TABLE api_key_secrets (
    hash TEXT PRIMARY KEY,
    key_id TEXT NOT NULL REFERENCES api_keys (id)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE api_key_retired_secrets (
    hash TEXT PRIMARY KEY,
    key_id TEXT NOT NULL REFERENCES api_keys (id),
    retire_time INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX api_key_retired_secrets_by_time ON api_key_retired_secrets (retire_time);

  CREATE TABLE api_key_rotations (
    id TEXT PRIMARY KEY,
    key_id TEXT NOT NULL REFERENCES api_keys (id),
    mode TEXT NOT NULL,
    start_time INTEGER NOT NULL,
    expire_time INTEGER NOT NULL,
    complete_time INTEGER,
    grace_end_noted INTEGER NOT NULL DEFAULT 0,
    old_uses INTEGER NOT NULL DEFAULT 0,
    last_old_use_time INTEGER,
    last_old_use_ip TEXT NOT NULL DEFAULT ''
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX api_key_rotations_by_start ON api_key_rotations (start_time, id);
  CREATE INDEX api_key_rotations_by_key ON api_key_rotations (key_id, start_time, id);

  CREATE TABLE api_key_anomalies (
    id TEXT PRIMARY KEY,
    open_for TEXT UNIQUE,
    key_id TEXT NOT NULL,
    type TEXT NOT NULL,
    state TEXT NOT NULL,
    count INTEGER NOT NULL,
    first_time INTEGER NOT NULL,
    last_time INTEGER NOT NULL,
    resolve_time INTEGER
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX api_key_anomalies_by_time ON api_key_anomalies (first_time, id);
  CREATE INDEX api_key_anomalies_by_key ON api_key_anomalies (key_id, first_time, id);

  CREATE TABLE api_key_alerts (
    id TEXT PRIMARY KEY,
    type TEXT NOT NULL,
    time INTEGER NOT NULL,
    key_id TEXT NOT NULL,
    client_ip TEXT NOT NULL,
    text TEXT NOT NULL,
    detail TEXT NOT NULL,
    pending INTEGER
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX api_key_alerts_by_time ON api_key_alerts (time, id);
  CREATE INDEX api_key_alerts_pending ON api_key_alerts (pending) WHERE pending NOT NULL;

  CREATE TABLE api_key_audit_log (
    row INTEGER PRIMARY KEY,
    process_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    hash TEXT NOT NULL,
    time INTEGER NOT NULL,
    -- A JSON array, as it was hashed.
    event TEXT NOT NULL,
    method TEXT AS (event ->> 0) VIRTUAL,
    outcome TEXT AS (event ->> 1) VIRTUAL,
    key_id TEXT AS (event ->> 3) VIRTUAL,
    caller_key_id TEXT AS (event ->> 4) VIRTUAL,
    client_ip TEXT AS (event ->> 7) VIRTUAL,
    secret_slot TEXT AS (event ->> 10) VIRTUAL
  ) STRICT;
  CREATE INDEX api_key_audit_log_by_time ON api_key_audit_log (time);

  -- Written later than the events and in chunks, up to the row that api_key_meta notes (look-ups.ts).
  CREATE TABLE api_key_audit_by_key (
    key_id TEXT NOT NULL,
    time INTEGER NOT NULL,
    row INTEGER NOT NULL,
    PRIMARY KEY (key_id, time, row)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE api_key_audit_by_ip (
    client_ip TEXT NOT NULL,
    time INTEGER NOT NULL,
    row INTEGER NOT NULL,
    PRIMARY KEY (client_ip, time, row)
  ) STRICT, WITHOUT ROWID;
  INSERT INTO api_key_meta VALUES ('audit_looked_up', 0);

  CREATE TABLE api_key_chain_heads (
    process_id TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL,
    hash TEXT NOT NULL,
    closed INTEGER NOT NULL,
    cut TEXT
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE api_key_limits (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    expire_time INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX api_key_limits_by_expire ON api_key_limits (expire_time);
  `,
  ['gitea_tokens', 'n8n_api_keys']
    .map(
      (table) => `
  CREATE TABLE ${table} (
    id TEXT PRIMARY KEY,
    user TEXT NOT NULL,
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    last_eight TEXT NOT NULL,
    hash TEXT NOT NULL,
    create_time INTEGER NOT NULL,
    expire_time INTEGER,
    delete_time INTEGER,
    last_verify_time INTEGER,
    last_verify_alive INTEGER
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX ${table}_by_hash ON ${table} (hash);
  CREATE INDEX ${table}_by_user ON ${table} (user, create_time, id);
  `,
    )
    .join(''),
  `
  -- What changes with nearly every call (deferred-rows.ts): changes wait in the journal for their place.
  CREATE TABLE api_key_journal (id INTEGER PRIMARY KEY, entries TEXT NOT NULL) STRICT;
  CREATE TABLE api_key_last_uses (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  INSERT INTO api_key_last_uses SELECT id, last_use_time FROM api_keys WHERE last_use_time NOT NULL;

  -- A key lies where the first digits of its secret's hash say, so that it is found in one step (place.ts).
  CREATE TABLE api_keys_placed (
    row INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    owner_id TEXT NOT NULL,
    key_type TEXT NOT NULL,
    secrets TEXT NOT NULL,
    hint TEXT NOT NULL,
    scopes TEXT NOT NULL,
    rate_limits TEXT NOT NULL,
    rate_limit_bucket TEXT NOT NULL,
    ip_allowlist TEXT NOT NULL,
    metadata TEXT NOT NULL,
    disabled INTEGER NOT NULL,
    create_time INTEGER NOT NULL,
    expire_time INTEGER,
    expired INTEGER NOT NULL,
    rotation TEXT,
    rotation_expire_time INTEGER,
    rotate_every_ms INTEGER,
    rotation_due_time INTEGER,
    revoke_time INTEGER,
    revoke_reason TEXT,
    revoke_note TEXT NOT NULL,
    request_id TEXT UNIQUE,
    etag TEXT NOT NULL,
    revision INTEGER NOT NULL
  ) STRICT;
  INSERT INTO api_keys_placed (id, name, owner_id, key_type, secrets, hint, scopes, rate_limits, rate_limit_bucket, ip_allowlist, metadata, disabled, create_time, expire_time, expired, rotation, rotation_expire_time, rotate_every_ms, rotation_due_time, revoke_time, revoke_reason, revoke_note, request_id, etag, revision) SELECT id, name, owner_id, key_type, secrets, hint, scopes, rate_limits, rate_limit_bucket, ip_allowlist, metadata, disabled, create_time, expire_time, expired, rotation, rotation_expire_time, rotate_every_ms, rotation_due_time, revoke_time, revoke_reason, revoke_note, request_id, etag, revision FROM api_keys;
  UPDATE OR IGNORE api_keys_placed SET row = coalesce(place(secrets ->> '$[0].hash'), row);
  DROP TABLE api_keys;
  ALTER TABLE api_keys_placed RENAME TO api_keys;
  CREATE INDEX api_keys_by_create ON api_keys (create_time, id);
  CREATE INDEX api_keys_by_owner ON api_keys (owner_id, create_time, id);
  CREATE INDEX api_keys_by_rotation_expire ON api_keys (rotation_expire_time, id) WHERE rotation_expire_time NOT NULL;
  CREATE INDEX api_keys_by_rotation_due ON api_keys (rotation_due_time, id) WHERE rotation_due_time NOT NULL;
  CREATE INDEX api_keys_by_expire ON api_keys (expire_time, id) WHERE expire_time NOT NULL;

  -- Quotas stay, one row a bucket; only lockouts are dropped when they are over.
  DROP INDEX api_key_limits_by_expire;
  CREATE INDEX api_key_limits_by_expire ON api_key_limits (expire_time) WHERE key < 'quota:';
  `,
  `
  CREATE INDEX api_keys_by_name ON api_keys (name);

  -- Counts of decisions by key and hour; reaches is the row of the log that a count includes.
  CREATE TABLE api_key_usage (
    key_id TEXT NOT NULL,
    hour INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    count INTEGER NOT NULL,
    reaches INTEGER NOT NULL,
    PRIMARY KEY (key_id, hour, outcome)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX api_key_usage_by_hour ON api_key_usage (hour);
  INSERT INTO api_key_meta VALUES ('usage_counted', 0), ('usage_round_end', 0);
  `,
  ['gitea_tokens', 'n8n_api_keys']
    .map(
      (table) => `
  ALTER TABLE ${table} ADD COLUMN user_id TEXT;
  ALTER TABLE ${table} ADD COLUMN last_verify_result TEXT;
  UPDATE ${table} SET last_verify_result = iif(last_verify_alive, 'ALIVE', 'DEAD') WHERE last_verify_alive NOT NULL;
  ALTER TABLE ${table} DROP COLUMN last_verify_alive;
  CREATE INDEX ${table}_by_user_id ON ${table} (user_id, create_time, id) WHERE user_id NOT NULL;
  `,
    )
    .join(''),
  `
  -- Lockouts in a table of their own; rate-limiter-flexible reads and writes it, so the columns have its names.
  CREATE TABLE api_key_lockouts (key TEXT PRIMARY KEY, points INTEGER NOT NULL, expire INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  CREATE INDEX api_key_lockouts_by_expire ON api_key_lockouts (expire);
  INSERT INTO api_key_lockouts
    SELECT substr(key, 9), value ->> 'points', expire_time FROM api_key_limits WHERE key > 'lockout:' AND key < 'lockout;';
  CREATE TABLE api_key_limits_of_quotas (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
  INSERT INTO api_key_limits_of_quotas
    SELECT substr(key, 7), value FROM api_key_limits WHERE key > 'quota:' AND key < 'quota;' ORDER BY key;
  DROP TABLE api_key_limits;
  ALTER TABLE api_key_limits_of_quotas RENAME TO api_key_limits;
  `,
  `
  -- Notes of where chains end are signed where there is a chain key; chains of before are marked as older. A file in
  -- which chains name each other was here already: somebody has set its version back, and its notes stay unsigned.
  ALTER TABLE api_key_chain_heads ADD COLUMN mac TEXT NOT NULL DEFAULT '';
  ALTER TABLE api_key_chain_heads ADD COLUMN older INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE api_key_chain_heads ADD COLUMN listed TEXT;
  UPDATE api_key_chain_heads SET older = 1, mac = note_mac(process_id, sequence, hash, closed),
    cut = CASE WHEN cut IS NULL THEN NULL ELSE signed_cut(process_id, cut) END
  WHERE NOT EXISTS (SELECT 1 FROM api_key_audit_log WHERE json_valid(event)
    AND event ->> 1 = 'CHECKPOINT' AND event ->> 2 GLOB 'heads *');
  `,
  `
  INSERT INTO api_key_meta VALUES ('epoch', lower(hex(randomblob(8))));
  `,
  `
  ALTER TABLE api_keys ADD COLUMN local_validation INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE api_keys ADD COLUMN ever_local INTEGER NOT NULL DEFAULT 0;
  -- The uses that guards have reported: (calling key, guard, sequence), so that one sent again changes nothing.
  CREATE TABLE api_key_local_uses (id TEXT PRIMARY KEY, time INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  CREATE INDEX api_key_local_uses_by_time ON api_key_local_uses (time);
  INSERT INTO api_key_meta VALUES ('guard_secret', lower(hex(randomblob(32))));
  `,
];
