#!/usr/bin/env node
// A plugin of buf: writes openapi.json, which describes every unary RPC over HTTP with JSON (the Connect protocol).
import {
  type DescEnum,
  type DescField,
  type DescMessage,
  type DescMethod,
  ScalarType,
} from '@bufbuild/protobuf';
import { createEcmaScriptPlugin, getComments, runNodeJs, type Schema } from '@bufbuild/protoplugin';
import packageJson from '../package.json' with { type: 'json' };

type Json = { [name: string]: unknown };

const INTEGER_64 = new Set([
  ScalarType.INT64,
  ScalarType.UINT64,
  ScalarType.SINT64,
  ScalarType.FIXED64,
  ScalarType.SFIXED64,
]);
const MAX_32 = 2 ** 31;

/** Messages with a special form in proto3 JSON. */
const WELL_KNOWN: Readonly<Record<string, Json>> = {
  'google.protobuf.Timestamp': { type: 'string', format: 'date-time', examples: ['2027-01-31T12:00:00Z'] },
  'google.protobuf.Duration': {
    type: 'string',
    pattern: '^-?[0-9]{1,12}(\\.[0-9]{1,9})?s$',
    examples: ['60s'],
  },
  'google.protobuf.FieldMask': { type: 'string', examples: ['name,rateLimits'] },
};

/** The error responses of Connect: https://connectrpc.com/docs/protocol/#error-end-stream */
const ERROR: Json = {
  type: 'object',
  description: 'Match on `reason` in the detail of type `google.rpc.ErrorInfo`, never on the text.',
  required: ['code'],
  properties: {
    code: {
      type: 'string',
      description: "The gRPC code's name in lower case.",
      examples: ['invalid_argument'],
    },
    message: { type: 'string' },
    details: {
      type: 'array',
      items: {
        type: 'object',
        properties: {
          type: { type: 'string', examples: ['google.rpc.ErrorInfo'] },
          value: { type: 'string', description: 'The protobuf message, base64 without padding.' },
          debug: { description: 'The same as JSON.' },
        },
      },
    },
  },
};

function documentOf(schema: Schema): Json {
  const services = schema.files
    .flatMap((file) => file.services)
    .filter(({ file }) => file.proto.package === 'apikey.v1');
  const schemas = new Map<string, Json>();
  const paths = services.flatMap((service) =>
    service.methods
      .filter((method) => method.methodKind === 'unary')
      .map((method) => [`/${service.typeName}/${method.name}`, { post: operationOf(method, schemas) }]),
  );
  return {
    openapi: '3.1.0',
    info: {
      title: packageJson.name,
      version: packageJson.version,
      summary: packageJson.description,
      description:
        'Every unary RPC over HTTP with JSON. The streams, WatchKeys and WatchAlerts, are for gRPC and Connect clients.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/' }],
    security: [{ key: [] }],
    tags: services.map((service) => ({ name: service.name, description: textOf(service) })),
    paths: Object.fromEntries(paths),
    components: {
      securitySchemes: {
        key: { type: 'http', scheme: 'bearer', description: 'A key with the scope that the service needs.' },
      },
      schemas: Object.fromEntries(
        [...schemas, ['Error', ERROR] as const].sort(([a], [b]) => (a < b ? -1 : 1)),
      ),
    },
  };
}

function operationOf(method: DescMethod, schemas: Map<string, Json>): Json {
  const content = (message: DescMessage) => ({
    'application/json': { schema: referenceTo(message, schemas) },
  });
  const failure = { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } };
  const text = textOf(method);
  return {
    operationId: method.name,
    tags: [method.parent.name],
    summary: text.split(/(?<=[.:;]) /, 1)[0]?.replace(/[.:;]$/, ''),
    description: text,
    requestBody: { required: true, content: content(method.input) },
    responses: {
      200: { description: 'OK', content: content(method.output) },
      '4XX': { description: 'Refused; the code and the reason say why.', content: failure },
      '5XX': { description: 'No answer could be made.', content: failure },
    },
  };
}

/** Also adds the message, and what it holds, to the schemas. */
function referenceTo(message: DescMessage, schemas: Map<string, Json>): Json {
  const known = WELL_KNOWN[message.typeName];
  if (known !== undefined) return known;
  const name = message.name;
  if (!schemas.has(name)) {
    const schema: Json = { type: 'object', description: textOf(message), additionalProperties: false };
    schemas.set(name, schema);
    const properties = message.fields.map((field) => [field.jsonName, fieldOf(field, schemas)]);
    if (properties.length > 0) schema.properties = Object.fromEntries(properties);
    // At most one field of a oneof may be set.
    const choices = message.oneofs.flatMap(({ fields }) =>
      fields.map((one) => {
        const others = fields.filter((other) => other !== one).map(({ jsonName }) => [jsonName, false]);
        return [one.jsonName, { properties: Object.fromEntries(others) }];
      }),
    );
    if (choices.length > 0) schema.dependentSchemas = Object.fromEntries(choices);
  }
  return { $ref: `#/components/schemas/${name}` };
}

function fieldOf(field: DescField, schemas: Map<string, Json>): Json {
  const description = textOf(field);
  const one = (): Json => {
    if (field.enum !== undefined) return enumOf(field.enum, schemas);
    return field.message === undefined ? scalarOf(field.scalar) : referenceTo(field.message, schemas);
  };
  if (field.fieldKind === 'list') return { type: 'array', description, items: one() };
  if (field.fieldKind === 'map') return { type: 'object', description, additionalProperties: one() };
  return { ...one(), description };
}

function scalarOf(scalar: ScalarType | undefined): Json {
  if (scalar === ScalarType.STRING) return { type: 'string' };
  if (scalar === ScalarType.BOOL) return { type: 'boolean' };
  if (scalar === ScalarType.INT32)
    return { type: 'integer', format: 'int32', minimum: -MAX_32, maximum: MAX_32 - 1 };
  // 64 bits are a string in proto3 JSON: JavaScript's numbers cannot hold them.
  if (scalar !== undefined && INTEGER_64.has(scalar))
    return { type: 'string', format: 'int64', pattern: '^-?[0-9]{1,18}$' };
  throw new Error(`no words for the scalar ${scalar}: add them here`);
}

function enumOf(type: DescEnum, schemas: Map<string, Json>): Json {
  const values = type.values.map((value) => `- \`${value.name}\`: ${textOf(value)}`);
  schemas.set(type.name, {
    type: 'string',
    description: [textOf(type), ...values].join('\n'),
    enum: type.values.map(({ name }) => name),
  });
  return { $ref: `#/components/schemas/${type.name}` };
}

function textOf(described: Parameters<typeof getComments>[0]): string {
  const { leading = '' } = getComments(described);
  return leading.trim().replaceAll(/\s*\n\s*/g, ' ');
}

runNodeJs(
  createEcmaScriptPlugin({
    name: 'protoc-gen-openapi',
    version: packageJson.version,
    generateTs(schema) {
      const file = schema.generateFile('openapi.json');
      file.print(JSON.stringify(documentOf(schema), null, 2));
    },
  }),
);
