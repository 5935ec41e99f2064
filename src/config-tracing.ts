/** The settings of traces, by OpenTelemetry's names, and the parser for their headers. */
import { ConfigError, type Row } from './config-values.ts';

export const TRACING_SETTINGS = [
  {
    name: 'OTEL_EXPORTER_OTLP_ENDPOINT',
    kind: 'text',
    default: '',
    about:
      'Traces go to this address, with `/v1/traces` behind it, as OTLP over HTTP (protobuf). Unset: no traces, and their library is not loaded.',
  },
  {
    name: 'OTEL_EXPORTER_OTLP_HEADERS',
    kind: 'text',
    default: '',
    secret: true,
    about: 'Headers that are sent with them: `name=value,name=value`, values percent-encoded.',
  },
  {
    name: 'OTEL_SERVICE_NAME',
    kind: 'text',
    default: 'apikeyd',
    about: 'Traces: the name of this service.',
  },
  {
    name: 'OTEL_TRACES_SAMPLER',
    kind: 'text',
    default: 'parentbased_always_on',
    choices: [
      'always_on',
      'always_off',
      'traceidratio',
      'parentbased_always_on',
      'parentbased_always_off',
      'parentbased_traceidratio',
    ],
    about:
      'Which calls are traced. `parentbased_…`: as the `traceparent` of the call says, where it has one.',
  },
  {
    name: 'OTEL_TRACES_SAMPLER_ARG',
    kind: 'number',
    unit: 'of all',
    default: '1',
    min: 0,
    max: 1,
    about: 'The share that a sampler with `traceidratio` takes.',
  },
] as const satisfies readonly Row[];

/** `name=value,name=value` as headers. @throws ConfigError */
export function parseTraceHeaders(text: string): Readonly<Record<string, string>> {
  if (text.trim() === '') return {};
  const pairs = text.split(',').map((pair) => {
    const [, name, value] = /^\s*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)\s*=\s*([\x21-\x7e]*)\s*$/.exec(pair) ?? [];
    if (name === undefined || value === undefined) throw notHeaders();
    try {
      return [name, decodeURIComponent(value)];
    } catch {
      throw notHeaders();
    }
  });
  return Object.fromEntries(pairs);
}

function notHeaders(): ConfigError {
  return new ConfigError(
    'OTEL_EXPORTER_OTLP_HEADERS: must be name=value,name=value with percent-encoded values',
  );
}
