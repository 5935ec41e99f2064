export { connectGuard, peerAddress } from './connect.ts';
export { type Asked, type Decided, Guard, type GuardOptions } from './guard.ts';
export { expressGuard, fastifyGuard } from './node.ts';
export type { Route } from './question.ts';
export type { KeyFacts, Outcome, Verdict } from './verdict.ts';
export { verdictOf } from './verdicts.ts';
export { type FetchRoute, fetchGuard, type HonoRoute, honoGuard } from './web.ts';
