CREATE TABLE api_key_meta (id TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE api_key_changes (
    revision INTEGER PRIMARY KEY,
    key_id TEXT NOT NULL,
    change TEXT NOT NULL
  ) STRICT;
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
CREATE TABLE gitea_tokens (
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
CREATE INDEX gitea_tokens_by_hash ON gitea_tokens (hash);
CREATE INDEX gitea_tokens_by_user ON gitea_tokens (user, create_time, id);
CREATE TABLE n8n_api_keys (
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
CREATE INDEX n8n_api_keys_by_hash ON n8n_api_keys (hash);
CREATE INDEX n8n_api_keys_by_user ON n8n_api_keys (user, create_time, id);
CREATE TABLE api_key_journal (id INTEGER PRIMARY KEY, entries TEXT NOT NULL) STRICT;
CREATE TABLE api_key_last_uses (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE "api_keys" (
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
CREATE INDEX api_keys_by_create ON api_keys (create_time, id);
CREATE INDEX api_keys_by_owner ON api_keys (owner_id, create_time, id);
CREATE INDEX api_keys_by_rotation_expire ON api_keys (rotation_expire_time, id) WHERE rotation_expire_time NOT NULL;
CREATE INDEX api_keys_by_rotation_due ON api_keys (rotation_due_time, id) WHERE rotation_due_time NOT NULL;
CREATE INDEX api_keys_by_expire ON api_keys (expire_time, id) WHERE expire_time NOT NULL;
CREATE INDEX api_key_limits_by_expire ON api_key_limits (expire_time) WHERE key < 'quota:';
INSERT INTO api_key_meta (id, value) VALUES ('audit_looked_up', 0);
INSERT INTO api_key_meta (id, value) VALUES ('revision', 3);
INSERT INTO api_key_changes (revision, key_id, change) VALUES (1, 'uid-apikey-b3e01d3b071e15ed', 'CREATED');
INSERT INTO api_key_changes (revision, key_id, change) VALUES (2, 'uid-apikey-d00f666313cbd0ab', 'CREATED');
INSERT INTO api_key_changes (revision, key_id, change) VALUES (3, 'uid-apikey-ca023ebc08193c99', 'CREATED');
INSERT INTO api_key_secrets (hash, key_id) VALUES ('2e351a157ec8f975e81dbbac42f105e8eaa579f95de5300f3f81944f25540dc7', 'uid-apikey-b3e01d3b071e15ed');
INSERT INTO api_key_secrets (hash, key_id) VALUES ('49960cb887213be837f098c178b2cc1946721bf7aabca5a1a11770041492c80f', 'uid-apikey-d00f666313cbd0ab');
INSERT INTO api_key_secrets (hash, key_id) VALUES ('5f5cf1b136d7cd3ee64bc67b83799c5d689bf56ed9ebf5b6d9f749c72810a467', 'uid-apikey-ca023ebc08193c99');
INSERT INTO api_key_audit_log (row, process_id, sequence, hash, time, event) VALUES (4, 'e276ae035ffe097b', 4, 'f5534472fc0f0511055c3e457d613f380869b8e43edda0efed8eeef2e0d688a6', 1002, '["apikey.v1.ApiKeyAuth/ValidateKey","DECISION_VALID","","","","","","",0,"","",1,0,12,"r2",0]');
INSERT INTO api_key_audit_log (row, process_id, sequence, hash, time, event) VALUES (5, 'e276ae035ffe097b', 5, '8de724af9601c79fd06fba9552ec37b8bc4971a80da68f1e36c6d569b5ae30a6', 1003, '["apikey.v1.ApiKeyAuth/ValidateKey","DECISION_VALID","","","","","","",0,"","",1,0,12,"r3",0]');
INSERT INTO api_key_audit_log (row, process_id, sequence, hash, time, event) VALUES (6, 'e276ae035ffe097b', 6, 'df364cbf5d79430737419b8712e293f610b61c7785a495c099b9cc1d67f44688', 1004, '["apikey.v1.ApiKeyAuth/ValidateKey","DECISION_VALID","","","","","","",0,"","",1,0,12,"r4",0]');
INSERT INTO api_key_audit_log (row, process_id, sequence, hash, time, event) VALUES (7, 'e276ae035ffe097b', 7, '2650f7e8d6fa15afb12da4d463c823f24433f7ca1ab3e65b57027bb26cc17f5e', 1005, '["apikey.v1.ApiKeyAuth/ValidateKey","DECISION_VALID","","","","","","",0,"","",1,0,12,"r5",0]');
INSERT INTO api_key_audit_log (row, process_id, sequence, hash, time, event) VALUES (8, '80a104bd822c1522', 1, 'fa58120055818bafee8491c37b8980e4b4a089e383c059fa4f886c79ce745c4b', 1000, '["apikey.v1.ApiKeyAuth/ValidateKey","DECISION_VALID","","","","","","",0,"","",1,0,12,"",0]');
INSERT INTO api_key_audit_log (row, process_id, sequence, hash, time, event) VALUES (9, '80a104bd822c1522', 2, '0e96150bb8830d3f0af1dc7ad497fd45abf86bb996a0da85afdaf7767b92e1df', 2000, '["apikey.v1.ApiKeyAuth/ValidateKey","DECISION_VALID","","","","","","",0,"","",1,0,12,"r0",0]');
INSERT INTO api_key_audit_log (row, process_id, sequence, hash, time, event) VALUES (10, '80a104bd822c1522', 3, '9444c62096e103581498d8995f117efdb0a340ac1c5cf7dd75652972250469b4', 2001, '["apikey.v1.ApiKeyAuth/ValidateKey","DECISION_VALID","","","","","","",0,"","",1,0,12,"r1",0]');
INSERT INTO api_key_audit_log (row, process_id, sequence, hash, time, event) VALUES (11, '80a104bd822c1522', 4, '5884b779989d7ac8fc0d3781371e18cab35f9f606004ebd8db2e145da48cf530', 2002, '["apikey.v1.ApiKeyAuth/ValidateKey","DECISION_VALID","","","","","","",0,"","",1,0,12,"r2",0]');
INSERT INTO api_key_audit_log (row, process_id, sequence, hash, time, event) VALUES (12, '80a104bd822c1522', 5, 'ed79b18dd0a21575f7add9b1950af7c7b8302a9c75756c983156e3c6a9e35887', 2003, '["apikey.v1.ApiKeyAuth/ValidateKey","DECISION_VALID","","","","","","",0,"","",1,0,12,"r3",0]');
INSERT INTO api_key_audit_log (row, process_id, sequence, hash, time, event) VALUES (13, '80a104bd822c1522', 6, 'a2b63633bbbad0accb4f0ba00833ee0fa90045faae3dac879c91e9623a712b9c', 2004, '["apikey.v1.ApiKeyAuth/ValidateKey","DECISION_VALID","","","","","","",0,"","",1,0,12,"r4",0]');
INSERT INTO api_key_audit_log (row, process_id, sequence, hash, time, event) VALUES (14, '80a104bd822c1522', 7, 'f19b0ba0a604acb3133d50571a22b168d69d966ee928126788c66598b7c64157', 2005, '["apikey.v1.ApiKeyAuth/ValidateKey","DECISION_VALID","","","","","","",0,"","",1,0,12,"r5",0]');
INSERT INTO api_key_audit_log (row, process_id, sequence, hash, time, event) VALUES (15, '80a104bd822c1522', 8, 'c5dd8cf319d9967bef524fcd23049d78b63f74875916978f6cd2a144873615a6', 1772366400000, '["apikeyd/retention","CHECKPOINT","e276ae035ffe097b 3 c973f46b064425bbb2c1c65e485fb6ac5a418b50c63282419841f12c3ac95f2c","","","","","",0,"","",0,0,0,"cut-1ad2b9885225ea6f",0]');
INSERT INTO api_key_audit_log (row, process_id, sequence, hash, time, event) VALUES (16, '77d962fb1a1e2ea4', 1, '45c7e3cf69614a0d6eb56a00fcad1d21a543830a28a3a6c96cba9825a35d19a1', 1000, '["apikey.v1.ApiKeyAuth/ValidateKey","DECISION_VALID","","","","","","",0,"","",1,0,12,"",0]');
INSERT INTO api_key_audit_log (row, process_id, sequence, hash, time, event) VALUES (17, '77d962fb1a1e2ea4', 2, '05aa55f85b20e3dd34e0299b3986f6fc0190178d444c05ace0ae4ff27a602404', 3000, '["apikey.v1.ApiKeyAuth/ValidateKey","DECISION_VALID","","","","","","",0,"","",1,0,12,"r0",0]');
INSERT INTO api_key_audit_log (row, process_id, sequence, hash, time, event) VALUES (18, '77d962fb1a1e2ea4', 3, '0cb48730ba330d7450599ec9b3f3e1559d1621444e19f329e1e4cf2d3f10e803', 3001, '["apikey.v1.ApiKeyAuth/ValidateKey","DECISION_VALID","","","","","","",0,"","",1,0,12,"r1",0]');
INSERT INTO api_key_audit_log (row, process_id, sequence, hash, time, event) VALUES (19, '77d962fb1a1e2ea4', 4, '6b37c02ef4b313c8deb0bb1ba71a3bef5ebb0de0e6b1e9506549683bc5281d9b', 3002, '["apikey.v1.ApiKeyAuth/ValidateKey","DECISION_VALID","","","","","","",0,"","",1,0,12,"r2",0]');
INSERT INTO api_key_audit_log (row, process_id, sequence, hash, time, event) VALUES (20, '77d962fb1a1e2ea4', 5, 'db8ecb1e0d8450cbd78892ee6a3473b7b4e4c862316b28172912ae2acaec5787', 3003, '["apikey.v1.ApiKeyAuth/ValidateKey","DECISION_VALID","","","","","","",0,"","",1,0,12,"r3",0]');
INSERT INTO api_key_audit_log (row, process_id, sequence, hash, time, event) VALUES (21, '77d962fb1a1e2ea4', 6, 'af861afcf077bd927d137c7ed69977d3619718ee360504bacb790224985c0d8a', 3004, '["apikey.v1.ApiKeyAuth/ValidateKey","DECISION_VALID","","","","","","",0,"","",1,0,12,"r4",0]');
INSERT INTO api_key_audit_log (row, process_id, sequence, hash, time, event) VALUES (22, '77d962fb1a1e2ea4', 7, 'be3222ab0c1e904889a0327b2d4f25f53f671c71db9dd6f3db6f23586a571fe4', 3005, '["apikey.v1.ApiKeyAuth/ValidateKey","DECISION_VALID","","","","","","",0,"","",1,0,12,"r5",0]');
INSERT INTO api_key_chain_heads (process_id, sequence, hash, closed, cut) VALUES ('77d962fb1a1e2ea4', 7, 'be3222ab0c1e904889a0327b2d4f25f53f671c71db9dd6f3db6f23586a571fe4', 1, NULL);
INSERT INTO api_key_chain_heads (process_id, sequence, hash, closed, cut) VALUES ('80a104bd822c1522', 8, 'c5dd8cf319d9967bef524fcd23049d78b63f74875916978f6cd2a144873615a6', 1, NULL);
INSERT INTO api_key_chain_heads (process_id, sequence, hash, closed, cut) VALUES ('e276ae035ffe097b', 7, '2650f7e8d6fa15afb12da4d463c823f24433f7ca1ab3e65b57027bb26cc17f5e', 1, '{"sequence":3,"hash":"c973f46b064425bbb2c1c65e485fb6ac5a418b50c63282419841f12c3ac95f2c","token":"cut-1ad2b9885225ea6f"}');
INSERT INTO api_keys (row, id, name, owner_id, key_type, secrets, hint, scopes, rate_limits, rate_limit_bucket, ip_allowlist, metadata, disabled, create_time, expire_time, expired, rotation, rotation_expire_time, rotate_every_ms, rotation_due_time, revoke_time, revoke_reason, revoke_note, request_id, etag, revision) VALUES (812889692171407, 'uid-apikey-b3e01d3b071e15ed', 'test', 'owner', 'SERVICE', '[{"hash":"2e351a157ec8f975e81dbbac42f105e8eaa579f95de5300f3f81944f25540dc7","createTime":1000}]', 'audit_v1_…WgVA', '["traces:read"]', '[]', 'uid-apikey-b3e01d3b071e15ed', '[]', '{}', 0, 1000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, '53c63475f50a7571', 1);
INSERT INTO api_keys (row, id, name, owner_id, key_type, secrets, hint, scopes, rate_limits, rate_limit_bucket, ip_allowlist, metadata, disabled, create_time, expire_time, expired, rotation, rotation_expire_time, rotate_every_ms, rotation_due_time, revoke_time, revoke_reason, revoke_note, request_id, etag, revision) VALUES (1294540917469715, 'uid-apikey-d00f666313cbd0ab', 'test', 'owner', 'SERVICE', '[{"hash":"49960cb887213be837f098c178b2cc1946721bf7aabca5a1a11770041492c80f","createTime":1000}]', 'audit_v1_…dDVg', '["traces:read"]', '[]', 'uid-apikey-d00f666313cbd0ab', '[]', '{}', 0, 1000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, '26458c4e9b7cc3e1', 2);
INSERT INTO api_keys (row, id, name, owner_id, key_type, secrets, hint, scopes, rate_limits, rate_limit_bucket, ip_allowlist, metadata, disabled, create_time, expire_time, expired, rotation, rotation_expire_time, rotate_every_ms, rotation_due_time, revoke_time, revoke_reason, revoke_note, request_id, etag, revision) VALUES (1677644744846716, 'uid-apikey-ca023ebc08193c99', 'test', 'owner', 'SERVICE', '[{"hash":"5f5cf1b136d7cd3ee64bc67b83799c5d689bf56ed9ebf5b6d9f749c72810a467","createTime":1000}]', 'audit_v1_…3ldw', '["traces:read"]', '[]', 'uid-apikey-ca023ebc08193c99', '[]', '{}', 0, 1000, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, '', NULL, '5b83063a5b5709eb', 3);
PRAGMA user_version = 3;
