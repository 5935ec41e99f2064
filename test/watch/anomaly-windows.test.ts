// If this fails, anomalies trip too early, too late or not at all, or their counting eats the memory.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type AnomalyThresholds, AnomalyWindows, MAX_KEYS } from '../../src/watch/anomaly-windows.ts';

const THRESHOLDS: AnomalyThresholds = {
  maxRequestsPerMinute: 1_000,
  maxErrorRatio: 0.5,
  minSamples: 20,
  maxIpsPerHour: 5,
  quietHours: undefined,
};
const T0 = Date.parse('2026-03-01T12:00:00Z');
const HOUR = 3_600_000;

/** The model: keeps every decision, and counts each window from scratch. */
function reference(thresholds: AnomalyThresholds) {
  const seen: { time: number; denied: boolean; ip: string | undefined }[] = [];
  return (time: number, denied: boolean, ip: string | undefined) => {
    seen.push({ time, denied, ip });
    const within = (ms: number) => seen.filter((each) => each.time > time - ms);
    const recent = within(300_000);
    const ips = new Set(within(HOUR).flatMap((each) => each.ip ?? []));
    return [
      ...(within(60_000).length > thresholds.maxRequestsPerMinute ? ['HIGH_REQUEST_RATE'] : []),
      ...(recent.length >= thresholds.minSamples &&
      recent.filter((each) => each.denied).length / recent.length > thresholds.maxErrorRatio
        ? ['HIGH_ERROR_RATE']
        : []),
      // A call without an address says nothing of addresses.
      ...(ip !== undefined && ips.size > thresholds.maxIpsPerHour ? ['MULTIPLE_IPS'] : []),
    ];
  };
}

describe('anomaly windows', () => {
  it('give the same result as counting all decisions', () => {
    const small = { ...THRESHOLDS, maxRequestsPerMinute: 12, minSamples: 5, maxIpsPerHour: 2 };
    const call = fc.record({
      wait: fc.constantFrom(0, 1, 999, 5_000, 59_999, 60_000, 60_001, 240_000, 300_000, HOUR - 1, HOUR),
      denied: fc.boolean(),
      ip: fc.constantFrom(undefined, 'a', 'b', 'c', 'd'),
    });
    fc.assert(
      fc.property(fc.array(call, { maxLength: 120 }), (calls) => {
        const windows = new AnomalyWindows(small);
        const expected = reference(small);
        let time = T0;
        for (const { wait, denied, ip } of calls) {
          time += wait;
          expect(windows.add('k', time, denied, ip)).toEqual(expected(time, denied, ip));
        }
      }),
      { numRuns: 300 },
    );
  });

  it('are exceeded strictly above the threshold: by the 1001st call of a minute, not the 1000th', () => {
    const windows = new AnomalyWindows(THRESHOLDS);
    for (let i = 0; i < 1_000; i++) expect(windows.add('k', T0 + i * 59, false, undefined)).toEqual([]);
    expect(windows.add('k', T0 + 59_999, false, undefined)).toEqual(['HIGH_REQUEST_RATE']);
    // The first call has left the minute by now.
    expect(windows.add('other', T0 + 59_999, false, undefined)).toEqual([]);
    const exact = new AnomalyWindows(THRESHOLDS);
    for (let i = 0; i < 1_000; i++) exact.add('k', T0 + i * 59, false, undefined);
    expect(exact.add('k', T0 + 60_000, false, undefined)).toEqual([]);
  });

  it('are exceeded when more than half of at least 20 decisions are denials', () => {
    const windows = new AnomalyWindows(THRESHOLDS);
    for (let i = 0; i < 19; i++) expect(windows.add('k', T0 + i, i < 10, undefined)).toEqual([]);
    // 10 of 20 is a half, 11 of 21 is more.
    expect(windows.add('k', T0 + 19, false, undefined)).toEqual([]);
    expect(windows.add('k', T0 + 20, true, undefined)).toEqual(['HIGH_ERROR_RATE']);
  });

  it('are exceeded by the sixth address of an hour', () => {
    const windows = new AnomalyWindows(THRESHOLDS);
    for (let i = 0; i < 5; i++) expect(windows.add('k', T0 + i, false, `ip${i}`)).toEqual([]);
    expect(windows.add('k', T0 + HOUR - 1, false, 'ip5')).toEqual(['MULTIPLE_IPS']);
    const late = new AnomalyWindows(THRESHOLDS);
    for (let i = 0; i < 5; i++) late.add('k', T0 + i, false, `ip${i}`);
    expect(late.add('k', T0 + HOUR, false, 'ip5')).toEqual([]);
  });

  it('cover quiet hours, also over midnight', () => {
    const at = (quietHours: AnomalyThresholds['quietHours'], time: string) =>
      new AnomalyWindows({ ...THRESHOLDS, quietHours }).add('k', Date.parse(time), false, undefined);
    const night = { from: 22, to: 4 };
    for (const time of ['2026-03-01T22:00:00Z', '2026-03-01T23:59:59Z', '2026-03-02T03:59:59.999Z'])
      expect(at(night, time)).toEqual(['UNUSUAL_TIME']);
    for (const time of ['2026-03-01T21:59:59.999Z', '2026-03-02T04:00:00Z'])
      expect(at(night, time)).toEqual([]);
    expect(at({ from: 9, to: 17 }, '2026-03-01T12:00:00Z')).toEqual(['UNUSUAL_TIME']);
    expect(at(undefined, '2026-03-01T03:00:00Z')).toEqual([]);
  });

  it('use bounded memory for a million keys and addresses', () => {
    const windows = new AnomalyWindows(THRESHOLDS);
    for (let i = 0; i < 1_000_000; i++) windows.add(`k${i}`, T0 + i, i % 2 === 0, `ip${i}`);
    expect(windows.keys).toBe(MAX_KEYS);
    // Busy keys have longer windows: there are fewer of them then.
    for (let key = 0; key < 1_000; key++)
      for (let i = 0; i < 5_000; i++) windows.add(`busy${key}`, T0 + 1_000_000 + key * 10, false, 'ip');
    expect(windows.slots).toBeLessThanOrEqual(2_097_152);
    expect(windows.keys).toBeGreaterThan(400);
  });

  it('are correct when the clock is set back', () => {
    const windows = new AnomalyWindows({ ...THRESHOLDS, maxRequestsPerMinute: 2 });
    windows.add('k', T0, false, undefined);
    windows.add('k', T0 + 120_000, false, undefined);
    windows.add('k', T0 + 1_000, false, undefined);
    expect(windows.add('k', T0 + 185_000, false, undefined)).toEqual([]);
  });
});
