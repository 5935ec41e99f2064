/** Advice about an error, by its reason; '' when the error text is enough. */
export function nextStep(reason: string, metadata: Readonly<Record<string, string>>): string {
  const steps: Readonly<Record<string, string>> = {
    CREDENTIAL_INVALID:
      'this server does not accept the key in --key-file: name another file, or create an admin key with "apikeyd recover" on the machine of the store',
    CREDENTIAL_MISSING: 'name the file that holds the calling key with --key-file',
    SCOPE_MISSING: `call with a key that has ${metadata.required_scope ?? 'the scope'}: name its file with --key-file`,
    SCOPE_NOT_HELD: 'call with a key that has this scope itself',
    KEY_NOT_FOUND: 'see "apikeyd api-key list"',
    ANOMALY_NOT_FOUND: 'see "apikeyd anomalies list --all"',
    KEY_REVOKED: 'a revocation is final: create a new key with "apikeyd api-key create"',
    KEY_EXPIRED: 'create a new key with "apikeyd api-key create"',
    ETAG_MISMATCH: 'the key has been changed since: see "apikeyd api-key get" and try again',
    ROTATION_IN_PROGRESS: 'end it with "apikeyd api-key rotate ID --complete", or rotate with --force',
    NO_ROTATION: 'begin one with "apikeyd api-key rotate ID"',
    REQUEST_ID_USED: 'the key exists: see "apikeyd api-key list", and rotate it if its secret was lost',
    INTEGRATION_OFF: `set ${metadata.setting ?? 'its setting'} where the server runs, and restart it`,
    REMOTE_UNAUTHENTICATED: 'check --login, the password and, with a second factor, the one-time password',
    BACKUP_OFF: 'set BACKUP_DIR where the server runs, and restart it',
    BACKUP_EXISTS: 'choose another name',
    TOO_MUCH_CONTENTION: 'try again',
    STORE_UNAVAILABLE: 'run "apikeyd doctor" on the machine of the server',
    AUDIT_UNAVAILABLE: 'run "apikeyd doctor" on the machine of the server',
  };
  return steps[reason] ?? '';
}
