/** Medians of alternating rounds, and tables of them. */

export function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

export function median(figures: readonly number[]): number {
  return [...figures].sort((a, b) => a - b)[Math.floor(figures.length / 2)] ?? Number.NaN;
}

/** The median of the ratios of each round: a temporary slowdown of the machine affects both. */
export function ratio(of: readonly number[], to: readonly number[]): number {
  return median(of.map((figure, i) => figure / (to[i] ?? Number.NaN)));
}

/** Measures all subjects in turn, round after round. */
export async function alternate<T>(
  subjects: readonly T[],
  rounds: number,
  measure: (subject: T) => number | Promise<number>,
): Promise<number[][]> {
  const figures: number[][] = subjects.map(() => []);
  for (let round = 1; round <= rounds; round++) {
    for (const [i, subject] of subjects.entries()) figures[i]?.push(await measure(subject));
    say(`  round ${round}: ${figures.map((of) => of.at(-1)?.toFixed(1)).join(' ')}`);
  }
  return figures;
}

export function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const line = (cells: readonly (string | number)[]) => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

export const rounded = (figure: number) => Math.round(figure);
export const spread = (figures: readonly number[]) =>
  `${rounded(Math.min(...figures))} to ${rounded(Math.max(...figures))}`;

/** The tools of a benchmark. */
export interface Bench {
  readonly folder: string;
  readonly quick: boolean;
  /** '' when there is none. */
  readonly mongoUri: string;
}

/** The result of a benchmark: a part of the page, and the figures to compare. */
export interface Answered {
  readonly text: string;
  readonly facts: Readonly<Record<string, number>>;
}
