import { Distribution, type MetricValue } from './distribution.ts';

/** The buckets of OpenTelemetry's RPC conventions, with finer ones below 5 ms, where most responses are. */
const SECONDS = [
  0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
] as const;
const COARSE = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5];

/** Durations of calls by method and code, both from closed lists, so the number of series is bounded. */
export class CallCounts {
  /** Nested maps, keyed by existing strings: a joined key would be allocated and hashed for each call. */
  readonly #methods = new Map<string, Map<string, Distribution>>();

  add(method: string, code: string, seconds: number): void {
    const known = this.#methods.get(method)?.get(code);
    (known ?? this.#begin(method, code)).add(seconds);
  }

  #begin(method: string, code: string): Distribution {
    const distribution = new Distribution(SECONDS);
    const codes = this.#methods.get(method) ?? new Map<string, Distribution>();
    codes.set(code, distribution);
    this.#methods.set(method, codes);
    return distribution;
  }

  /** `rpc.server.call.duration` of OpenTelemetry's conventions. */
  ofConventions(name: string): MetricValue[] {
    return this.#series().flatMap(([method, code, distribution]) => {
      const labels = { rpc_system_name: 'grpc', rpc_method: method, rpc_response_status_code: code };
      return distribution.valuesOf(name, labels);
    });
  }

  byMethodAndCode(): MetricValue[] {
    return this.#series().map(([method, code, { count }]) => ({ labels: { method, code }, value: count }));
  }

  byMethod(name: string): MetricValue[] {
    return [...this.#methods].flatMap(([method, codes]) => {
      const all = new Distribution(SECONDS);
      for (const distribution of codes.values()) all.include(distribution);
      return all.valuesOf(name, { method }, COARSE);
    });
  }

  #series(): [method: string, code: string, distribution: Distribution][] {
    return [...this.#methods].flatMap(([method, codes]) =>
      [...codes].map(([code, distribution]): [string, string, Distribution] => [method, code, distribution]),
    );
  }
}
