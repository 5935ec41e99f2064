import { LRUCache } from 'lru-cache';
import { ANOMALY_TYPES, type AnomalyType } from '../keys/notices.ts';

export interface AnomalyThresholds {
  /** Calls per key in 60 s; more trip HIGH_REQUEST_RATE. */
  readonly maxRequestsPerMinute: number;
  /** Share of denials in the decisions of 5 minutes, 0 to 1; more trips HIGH_ERROR_RATE. */
  readonly maxErrorRatio: number;
  /** The share counts only with at least this many decisions. */
  readonly minSamples: number;
  /** Client addresses per key in an hour; more trip MULTIPLE_IPS. */
  readonly maxIpsPerHour: number;
  /** Hours of the day in UTC, from inclusive, to exclusive; may wrap midnight. Undefined: none. */
  readonly quietHours: { readonly from: number; readonly to: number } | undefined;
}

const MINUTE_MS = 60_000;
const ERROR_WINDOW_MS = 300_000;
const HOUR_MS = 3_600_000;

/** Keys with windows; the least recently used one is evicted, and starts anew when used again. */
export const MAX_KEYS = 10_000;
/** The error ratio covers the decisions of 5 minutes, and at most this many of the latest. */
const MAX_DECISIONS = 4_096;
/** Decisions remembered for all keys together: 16 MiB. */
const MAX_SLOTS = 2_097_152;

/** The anomalies of a call, by a bit for each of ANOMALY_TYPES: shared lists, so that no call allocates one. */
const TRIPS: readonly (readonly AnomalyType[])[] = Array.from({ length: 16 }, (_, bits) =>
  ANOMALY_TYPES.filter((_type, i) => (bits & (1 << i)) !== 0),
);

/**
 * The latest decisions about one key: a ring of times, with half a millisecond added for a denial. Most keys are
 * validated rarely and from one address; their windows are small and cheap to create.
 */
class KeyWindow {
  #ring = [0.5, 0.5];
  /** Decisions ever pushed, dropped, and dropped from the minute; modulo the ring's size they are positions in it. */
  #end = 0;
  #start = 0;
  #minuteStart = 0;
  #denied = 0;
  #last = 0;
  /** Latest use of each address, oldest first. One address more than the threshold decides, so no more are kept. */
  #ips: Map<string, number> | undefined;
  /** The most recent address, whose time is kept here; the only address while there is no map. */
  #latestIp: string | undefined;
  #latestIpTime = 0;
  #oldestIpTime = 0;

  get slots(): number {
    return this.#ring.length;
  }

  get decisions(): number {
    return this.#end - this.#start;
  }

  get inMinute(): number {
    return this.#end - this.#minuteStart;
  }

  get deniedRatio(): number {
    return this.#denied / this.decisions;
  }

  get ips(): number {
    return this.#ips?.size ?? (this.#latestIp === undefined ? 0 : 1);
  }

  add(at: number, denied: boolean, maxSlots: number): void {
    // A clock that was set back must not bring old calls back into the window.
    const time = Math.max(at, this.#last);
    this.#last = time;
    if (this.decisions === this.#ring.length) {
      if (this.#ring.length < maxSlots) this.#grow();
      else this.#drop();
    }
    this.#ring[this.#end % this.#ring.length] = denied ? time + 0.5 : time;
    this.#end++;
    if (denied) this.#denied++;
    while (this.decisions > 0 && this.#timeOf(this.#start) <= time - ERROR_WINDOW_MS) this.#drop();
    this.#minuteStart = Math.max(this.#minuteStart, this.#start);
    while (this.#minuteStart < this.#end && this.#timeOf(this.#minuteStart) <= time - MINUTE_MS) {
      this.#minuteStart++;
    }
  }

  addIp(ip: string, maxIps: number): void {
    const now = this.#last;
    // Most calls come from the same address as the previous one.
    if (ip === this.#latestIp && this.#oldestIpTime > now - HOUR_MS) {
      this.#latestIpTime = now;
      return;
    }
    if (this.#latestIp === undefined) this.#oldestIpTime = now;
    else {
      const ips = this.#ips ?? new Map<string, number>();
      this.#ips = ips;
      ips.set(this.#latestIp, this.#latestIpTime);
      ips.delete(ip);
      ips.set(ip, now);
      for (const [oldest, time] of ips) {
        this.#oldestIpTime = time;
        if (time > now - HOUR_MS && ips.size <= maxIps + 1) break;
        ips.delete(oldest);
      }
    }
    this.#latestIp = ip;
    this.#latestIpTime = now;
  }

  #timeOf(place: number): number {
    return Math.floor(this.#ring[place % this.#ring.length] ?? 0);
  }

  #drop(): void {
    const value = this.#ring[this.#start % this.#ring.length] ?? 0;
    if (value !== Math.floor(value)) this.#denied--;
    this.#start++;
  }

  #grow(): void {
    const bigger = Array(this.#ring.length * 2).fill(0.5);
    for (let place = this.#start; place < this.#end; place++) {
      bigger[place % bigger.length] = this.#ring[place % this.#ring.length] ?? 0;
    }
    this.#ring = bigger;
  }
}

/** Sliding windows over the decisions about keys: exact for the keys it holds, with bounded memory. */
export class AnomalyWindows {
  readonly #thresholds: AnomalyThresholds;
  readonly #maxSlotsOfKey: number;
  readonly #keys: LRUCache<string, KeyWindow>;
  #slots = 0;

  constructor(thresholds: AnomalyThresholds) {
    this.#thresholds = thresholds;
    this.#keys = new LRUCache({
      max: MAX_KEYS,
      dispose: (window) => {
        this.#slots -= window.slots;
      },
    });
    const needed = Number.isFinite(thresholds.maxRequestsPerMinute) ? thresholds.maxRequestsPerMinute + 1 : 0;
    this.#maxSlotsOfKey = 2 ** Math.ceil(Math.log2(Math.max(MAX_DECISIONS, needed)));
  }

  get keys(): number {
    return this.#keys.size;
  }

  get slots(): number {
    return this.#slots;
  }

  /** Adds a decision about a key; returns the anomalies that it trips. */
  add(keyId: string, time: number, denied: boolean, clientIp: string | undefined): readonly AnomalyType[] {
    const window = this.#windowOf(keyId);
    const before = window.slots;
    window.add(time, denied, this.#maxSlotsOfKey);
    this.#slots += window.slots - before;
    const { maxRequestsPerMinute, maxErrorRatio, minSamples, maxIpsPerHour } = this.#thresholds;
    const addressed = clientIp !== undefined && Number.isFinite(maxIpsPerHour);
    if (addressed) window.addIp(clientIp, maxIpsPerHour);
    while (this.#slots > MAX_SLOTS && this.#keys.size > 1) this.#keys.pop();
    const trips =
      (window.inMinute > maxRequestsPerMinute ? 1 : 0) +
      (window.decisions >= minSamples && window.deniedRatio > maxErrorRatio ? 2 : 0) +
      (addressed && window.ips > maxIpsPerHour ? 4 : 0) +
      (this.#isQuiet(time) ? 8 : 0);
    return TRIPS[trips] ?? [];
  }

  #windowOf(keyId: string): KeyWindow {
    let window = this.#keys.get(keyId);
    if (window === undefined) {
      window = new KeyWindow();
      this.#slots += window.slots;
      this.#keys.set(keyId, window);
    }
    return window;
  }

  #isQuiet(time: number): boolean {
    const { quietHours } = this.#thresholds;
    if (quietHours === undefined) return false;
    const { from, to } = quietHours;
    const hour = Math.floor(time / HOUR_MS) % 24;
    return from <= to ? hour >= from && hour < to : hour >= from || hour < to;
  }
}
