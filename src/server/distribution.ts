/** One value of a metric, as prom-client's registry writes it. */
export interface MetricValue {
  readonly value: number;
  readonly labels?: Readonly<Record<string, string | number>>;
  readonly metricName?: string;
}

/** Counts of values between bounds, and their sum: plain numbers, so that counting costs next to nothing. */
export class Distribution {
  readonly #bounds: readonly number[];
  readonly #counts: Float64Array;
  #sum = 0;

  /** @param bounds ascending upper bounds, inclusive */
  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#counts = new Float64Array(bounds.length + 1);
  }

  get count(): number {
    return this.#counts.reduce((sum, count) => sum + count, 0);
  }

  add(value: number): void {
    const bounds = this.#bounds;
    let at = 0;
    while (at < bounds.length && value > (bounds[at] as number)) at++;
    this.#counts[at] = (this.#counts[at] as number) + 1;
    this.#sum += value;
  }

  /** Adds the counts of another distribution with the same bounds. */
  include(other: Distribution): void {
    for (const [at, count] of other.#counts.entries())
      this.#counts[at] = (this.#counts[at] as number) + count;
    this.#sum += other.#sum;
  }

  /** The values of a histogram: cumulative, at some of the bounds. */
  valuesOf(
    name: string,
    labels: Readonly<Record<string, string>>,
    bounds: readonly number[] = this.#bounds,
  ): MetricValue[] {
    const lines: MetricValue[] = [];
    let below = 0;
    for (const [at, bound] of this.#bounds.entries()) {
      below += this.#counts[at] as number;
      if (bounds.includes(bound))
        lines.push({ metricName: `${name}_bucket`, labels: { ...labels, le: bound }, value: below });
    }
    const { count } = this;
    return [
      ...lines,
      { metricName: `${name}_bucket`, labels: { ...labels, le: '+Inf' }, value: count },
      { metricName: `${name}_sum`, labels, value: this.#sum },
      { metricName: `${name}_count`, labels, value: count },
    ];
  }
}
