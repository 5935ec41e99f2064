import { randomBytes } from 'node:crypto';
import type { MessageInitShape } from '@bufbuild/protobuf';
import type { SyncKeysRequestSchema } from '../../gen/apikey/v1/auth_pb.ts';
import type { Clients } from '../support/server.ts';

type Request = MessageInitShape<typeof SyncKeysRequestSchema>;

/** What a guard keeps, and its calls. */
export class GuardCalls {
  readonly guardId = randomBytes(16).toString('base64url');
  clients: Clients;
  epoch = '';
  revision = 0n;
  lastGrantId = '';

  constructor(clients: Clients) {
    this.clients = clients;
  }

  /** Asks, and applies the answer. */
  async sync(more: Request = {}) {
    const answer = await this.ask(more);
    this.epoch = answer.epoch;
    this.revision = answer.revision;
    this.lastGrantId = answer.grantId;
    return answer;
  }

  ask(more: Request = {}) {
    const { guardId, epoch, revision, lastGrantId } = this;
    return this.clients.auth.syncKeys({ guardId, epoch, revision, lastGrantId, ...more });
  }

  facts(key: string) {
    return this.clients.auth.validateKey({ key, wantFacts: true, minRevision: this.revision });
  }
}
