// If this fails, clients generated from openapi.json send requests that are refused, or cannot read responses.
import { createConfig, lintFromString } from '@redocly/openapi-core';
import { Ajv2020 } from 'ajv/dist/2020.js';
import formats from 'ajv-formats';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ApiKeyAdmin } from '../../gen/apikey/v1/admin_pb.ts';
import { ApiKeyAuth } from '../../gen/apikey/v1/auth_pb.ts';
import { ApiKeyIntegrations } from '../../gen/apikey/v1/integrations_pb.ts';
import openapi from '../../gen/openapi.json' with { type: 'json' };
import { run } from '../support/process.ts';
import { requires } from '../support/requires.ts';
import { freshDatabase, startServer, type TestServer } from '../support/server.ts';
import { tool } from '../support/tools.ts';

const METHODS = [ApiKeyAuth, ApiKeyAdmin, ApiKeyIntegrations].flatMap(({ typeName, methods }) =>
  methods.filter(({ methodKind }) => methodKind === 'unary').map(({ name }) => `/${typeName}/${name}`),
);

type Json = Record<string, unknown>;

describe('openapi.json', () => {
  const database = freshDatabase('sqlite', '');
  let server: TestServer;
  let base = '';
  beforeAll(async () => {
    server = await startServer(database.url, database.folder, { RATE_LIMIT_MAX_ATTEMPTS: '1000000' });
    base = `http://127.0.0.1:${server.running.ports.http}`;
  });
  afterAll(async () => {
    await server.stop();
    await database.drop();
  });

  const ajv = new Ajv2020({ strict: false });
  formats.default(ajv);
  ajv.addSchema(openapi, 'doc');
  const problemsOf = (name: string, value: unknown) => {
    ajv.validate(`doc#/components/schemas/${name}`, value);
    return ajv.errors ?? [];
  };
  const call = async (path: string, body: Json) => {
    const response = await fetch(`${base}${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${server.adminKey}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    return { status: response.status, json: (await response.json()) as Json };
  };
  /** Sends requests that the document allows, and expects the documented responses. */
  const ask = async (method: string, body: Json) => {
    expect(problemsOf(`${method.split('/')[1]}Request`, body), method).toEqual([]);
    const { status, json } = await call(`/apikey.v1.${method}`, body);
    expect(problemsOf(status === 200 ? `${method.split('/')[1]}Response` : 'Error', json), method).toEqual(
      [],
    );
    return json;
  };

  it('is served on both ports as it is committed', async () => {
    const { grpc, http } = server.running.ports;
    for (const port of [grpc, http]) {
      const response = await fetch(`http://127.0.0.1:${port}/openapi.json`);
      expect(response.headers.get('content-type')).toBe('application/json');
      expect(await response.json()).toEqual(openapi);
    }
  });

  it('has every unary RPC, and a description of every field', () => {
    expect(Object.keys(openapi.paths).sort()).toEqual([...METHODS].sort());
    const undescribed = Object.entries(
      openapi.components.schemas as Record<
        string,
        { description?: string; properties?: Record<string, Json> }
      >,
    )
      .filter(([name]) => name !== 'Error')
      .flatMap(([name, { description, properties = {} }]) => [
        ...(description ? [] : [name]),
        ...Object.entries(properties).flatMap(([field, { description }]) =>
          description ? [] : [`${name}.${field}`],
        ),
      ]);
    expect(undescribed).toEqual([]);
  });

  it('has no problem that a linter finds', async () => {
    const config = await createConfig({ extends: ['recommended'] });
    const problems = await lintFromString({ source: JSON.stringify(openapi), config });
    expect(problems.map(({ ruleId, message }) => `${ruleId}: ${message}`)).toEqual([]);
  });

  it('describes the real requests and responses', async () => {
    const expireTime = new Date(Date.now() + 3_600_000).toISOString();
    const rateLimits = [{ name: 'minute', limit: '100', window: '60s' }];
    const key = { name: 'n', ownerId: 'o', keyType: 'KEY_TYPE_SERVICE', scopes: ['a:b'] };
    const made = await ask('ApiKeyAdmin/CreateKey', {
      ...key,
      rateLimits,
      expireTime,
      metadata: { team: 'x' },
      rotateEvery: '7200s',
    });
    const { id } = made.key as { id: string };
    const validated = await ask('ApiKeyAuth/ValidateKey', {
      key: made.secret,
      requiredScope: 'a:b',
      cost: '2',
    });
    expect(validated).toMatchObject({ decision: 'DECISION_VALID', rateLimits: [{ remaining: '98' }] });
    await ask('ApiKeyAuth/BatchValidateKeys', {
      requests: [{ key: made.secret }, { key: 'x', dryRun: true }],
    });
    await ask('ApiKeyAdmin/UpdateKey', { key: { id, name: 'm' }, updateMask: 'name' });
    await ask('ApiKeyAdmin/RotateKey', { id, mode: 'ROTATION_MODE_MANUAL', grace: '7200s' });
    expect(await ask('ApiKeyAdmin/ListRotations', { keyId: id })).toMatchObject({
      rotations: [{ keyId: id }],
    });
    expect(await ask('ApiKeyAdmin/GetKey', { id })).toMatchObject({
      key: { rotation: { state: 'ROTATION_STATE_ACTIVE' } },
    });
    await ask('ApiKeyAdmin/ImportKeys', { keys: [{ ...key, keyHash: 'a'.repeat(64) }], validateOnly: true });
    await ask('ApiKeyAdmin/ExpireKey', { id });
    await ask('ApiKeyAdmin/RevokeKey', { id, reason: 'REVOKE_REASON_SUPERSEDED' });
    expect(await ask('ApiKeyAdmin/RotateKey', { id })).toMatchObject({ code: 'failed_precondition' });
    for (const method of [
      'ListKeys',
      'GetStats',
      'ListAuditEvents',
      'VerifyAudit',
      'ListAnomalies',
      'ListLockouts',
    ])
      expect(Object.keys(await ask(`ApiKeyAdmin/${method}`, {})), method).not.toContain('code');
    expect(await ask('ApiKeyIntegrations/VerifyGiteaToken', { secret: 'x' })).toMatchObject({
      code: 'failed_precondition',
    });
  });

  it('allows no field that the server does not know', async () => {
    expect(problemsOf('ValidateKeyRequest', { key: 'x', requiredScopes: 'a' })).not.toEqual([]);
    expect(problemsOf('CreateKeyRequest', { expireTime: '2027-01-31T12:00:00Z', ttl: '60s' })).not.toEqual(
      [],
    );
    expect(problemsOf('CreateKeyRequest', { keyType: 'SERVICE' })).not.toEqual([]);
    expect(problemsOf('ValidateKeyRequest', { key: 1 })).not.toEqual([]);
  });

  /** What it has learned from a list it ends, too: the calls that can end its own key come by themselves. */
  const ENDING = 'RevokeKey|ExpireKey|UpdateKey|RotateKey';
  // Not that all else is refused: proto3 JSON also reads null for absent, and the numbers of enums.
  const CHECKS = [
    'not_a_server_error',
    'status_code_conformance',
    'content_type_conformance',
    'response_schema_conformance',
  ];
  for (const which of [`--exclude-path-regex=${ENDING}`, `--include-path-regex=${ENDING}`])
    requires('schemathesis').it(
      `stands up to requests that schemathesis makes of it: ${which}`,
      { timeout: 600_000 },
      async () => {
        const ended = await run(
          tool('schemathesis'),
          [
            ...['run', '--url', base, '--phases', 'fuzzing', '--mode', 'all', '--seed', '7', '--no-color'],
            ...['--max-examples', process.env.LONG ? '200' : '15', '--checks', CHECKS.join(','), which],
            ...['--header', `Authorization: Bearer ${server.adminKey}`, `${base}/openapi.json`],
          ],
          { cwd: database.folder },
        );
        expect(ended.code, ended.stdout.replaceAll(server.adminKey, '(key)')).toBe(0);
        if (which.startsWith('--exclude')) expect(ended.stdout).not.toContain('Authentication failed');
      },
    );
});
