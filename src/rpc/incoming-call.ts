import type { CallOrigin } from '../keys/ports/audit.ts';
import type { Clock } from '../keys/ports/clock.ts';

/** A call as both mounts pass it on, before its message is read. */
export interface IncomingCall {
  /** `apikey.v1.ApiKeyAuth/ValidateKey` and the like. */
  readonly method: string;
  /** The calling backend's address, normalised. */
  readonly peerIp: string;
  /** The value of the `authorization` header. */
  readonly authorization: string | undefined;
  readonly arriveTime: number;
  readonly arriveMonotonic: number;
}

/** Signals long-running work that its caller is gone. */
export interface Departure {
  /** Aborted when the peer disconnects or the deadline passes. Created on first use. */
  gone(): AbortSignal;
}

export function newCall(
  clock: Clock,
  method: string,
  peerIp: string,
  authorization: string | undefined,
): IncomingCall {
  return { method, peerIp, authorization, arriveTime: clock.now(), arriveMonotonic: clock.monotonic() };
}

/** The caller: a key, or unknown. */
export interface Caller {
  readonly keyId: string;
  readonly scopes: readonly string[];
}

export const NOBODY: Caller = { keyId: '', scopes: [] };

export function originOf(call: IncomingCall, caller: Caller, requestId: string): CallOrigin {
  return {
    method: call.method,
    arriveTime: call.arriveTime,
    arriveMonotonic: call.arriveMonotonic,
    peerIp: call.peerIp,
    callerKeyId: caller.keyId,
    callerScopes: caller.scopes,
    requestId,
  };
}
