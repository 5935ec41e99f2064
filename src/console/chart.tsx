import { timestampMs } from '@bufbuild/protobuf/wkt';
import type { UsageRow } from '../../gen/apikey/v1/admin_pb.ts';
import { Decision, DecisionSchema } from '../../gen/apikey/v1/auth_pb.ts';
import { Table } from './parts.tsx';
import { wordOf } from './words.ts';

const WIDTH = 640;
const HEIGHT = 140;
const DAY_MS = 86_400_000;

interface Bar {
  readonly time: number;
  readonly good: number;
  readonly bad: number;
}

function barsOf(rows: readonly UsageRow[], stepMs: number, from: number, to: number): Bar[] {
  const first = Math.floor(from / stepMs) * stepMs;
  const bars = Array.from({ length: Math.max(1, Math.ceil((to - first) / stepMs)) }, (_, i) => ({
    time: first + i * stepMs,
    good: 0,
    bad: 0,
  }));
  for (const { time, decision, count } of rows) {
    const bar = bars[Math.floor(((time === undefined ? 0 : timestampMs(time)) - first) / stepMs)];
    if (bar !== undefined) bar[decision === Decision.VALID ? 'good' : 'bad'] += Number(count);
  }
  return bars;
}

const labelOf = (time: number, stepMs: number) => {
  const text = new Date(time).toISOString();
  return stepMs < DAY_MS ? `${text.slice(5, 10)} ${text.slice(11, 16)}` : text.slice(0, 10);
};

/** Decisions over time: VALID below, denials on top, and the same numbers as a table. */
export function UsageChart({
  rows,
  stepMs,
  from,
  to,
}: {
  rows: readonly UsageRow[];
  stepMs: number;
  from: number;
  to: number;
}) {
  const bars = barsOf(rows, stepMs, from, to);
  const most = Math.max(0, ...bars.map(({ good, bad }) => good + bad));
  const width = WIDTH / bars.length;
  const height = (count: number) => (count === 0 ? 0 : Math.max(2, (count / most) * HEIGHT));
  const total = bars.reduce((sum, { good, bad }) => ({ good: sum.good + good, bad: sum.bad + bad }), {
    good: 0,
    bad: 0,
  });
  return (
    <figure class="chart">
      <p class="hint">
        Most in {stepMs < DAY_MS ? 'an hour' : 'a day'}: {most}
      </p>
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={`${total.good} valid, ${total.bad} denied`}
      >
        {bars.map(({ time, good, bad }, i) => (
          <g key={time}>
            <title>{`${labelOf(time, stepMs)} UTC: ${good} valid, ${bad} denied`}</title>
            <rect class="hit" x={i * width} y={0} width={width} height={HEIGHT} />
            <rect
              class="valid"
              x={i * width + 1}
              y={HEIGHT - height(good)}
              width={Math.max(1, width - 2)}
              height={height(good)}
            />
            <rect
              class="denied"
              x={i * width + 1}
              y={HEIGHT - height(good) - height(bad)}
              width={Math.max(1, width - 2)}
              height={height(bad)}
            />
          </g>
        ))}
      </svg>
      <figcaption>
        <span>{labelOf(bars[0]?.time ?? from, stepMs)}</span>
        <span>
          <b class="key valid" /> {total.good} valid · <b class="key denied" /> {total.bad} denied
        </span>
        <span>{labelOf(to, stepMs)} UTC</span>
      </figcaption>
      <details>
        <summary>The same as a table</summary>
        <Table
          caption="decisions over time"
          head={['Time (UTC)', 'Decision', 'Count']}
          empty="No decisions in this time."
        >
          {rows.map(({ time, decision, count }) => (
            <tr key={`${time?.seconds} ${decision}`}>
              <td>{labelOf(time === undefined ? 0 : timestampMs(time), stepMs)}</td>
              <td>{wordOf(DecisionSchema, decision)}</td>
              <td class="number">{String(count)}</td>
            </tr>
          ))}
        </Table>
      </details>
    </figure>
  );
}
