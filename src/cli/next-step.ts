/** What to do about an error, by its reason; '' where its text says it all. */
export function nextStep(reason: string, metadata: Readonly<Record<string, string>>): string {
  const steps: Readonly<Record<string, string>> = {
    CREDENTIAL_INVALID:
      'the key in --key-file is not good here: name another file, or make a new admin key with "apikeyd recover" where the store is',
    CREDENTIAL_MISSING: 'name the file that holds the calling key with --key-file',
    SCOPE_MISSING: `call with a key that has ${metadata.required_scope ?? 'the scope'}: name its file with --key-file`,
    SCOPE_NOT_HELD: 'call with a key that holds it itself',
    KEY_NOT_FOUND: 'see "apikeyd api-key list"',
    ANOMALY_NOT_FOUND: 'see "apikeyd anomalies list --all"',
    KEY_REVOKED: 'a revoked key stays so: make a new one with "apikeyd api-key create"',
    KEY_EXPIRED: 'make a new key with "apikeyd api-key create"',
    ETAG_MISMATCH: 'somebody has changed it since: see "apikeyd api-key get" and try again',
    ROTATION_IN_PROGRESS: 'end it with "apikeyd api-key rotate ID --complete", or rotate with --force',
    NO_ROTATION: 'begin one with "apikeyd api-key rotate ID"',
    REQUEST_ID_USED: 'the key exists: see "apikeyd api-key list", and rotate it if its secret was lost',
    INTEGRATION_OFF: `set ${metadata.setting ?? 'its setting'} where the server runs, and start it anew`,
    REMOTE_UNAUTHENTICATED: 'check --login, the password and, with a second factor, the one-time password',
    BACKUP_OFF: 'set BACKUP_DIR where the server runs, and start it anew',
    BACKUP_EXISTS: 'choose another name',
    TOO_MUCH_CONTENTION: 'try again',
    STORE_UNAVAILABLE: 'see "apikeyd doctor" where the server runs',
    AUDIT_UNAVAILABLE: 'see "apikeyd doctor" where the server runs',
  };
  return steps[reason] ?? '';
}
