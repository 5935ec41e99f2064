import { type DescFile, type DescService, toBinary } from '@bufbuild/protobuf';
import { nestedTypes } from '@bufbuild/protobuf/reflect';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import { Code, type ConnectRouter } from '@connectrpc/connect';
import { file_google_rpc_error_details } from '../../gen/google/rpc/error_details_pb.ts';
import { ServerReflection } from '../../gen/grpc/reflection/v1/reflection_pb.ts';
import { ServerReflection as ServerReflectionAlpha } from '../../gen/grpc/reflection/v1alpha/reflection_pb.ts';

/** A request of v1 or v1alpha. */
type ReflectionRequest = { readonly case?: string | undefined; readonly value?: unknown };

/** Adds server reflection, v1 and v1alpha, from the generated descriptors; it includes the error details. */
export function addReflection(router: ConnectRouter, services: readonly DescService[]): void {
  const all = [...services, ServerReflection, ServerReflectionAlpha];
  const described = new Described(all);
  async function* serverReflectionInfo<R extends { host: string; messageRequest: ReflectionRequest }>(
    requests: AsyncIterable<R>,
  ) {
    for await (const request of requests) {
      const messageResponse = described.describe(request.messageRequest);
      yield { validHost: request.host, originalRequest: request, messageResponse };
    }
  }
  router.service(ServerReflection, { serverReflectionInfo: serverReflectionInfo });
  router.service(ServerReflectionAlpha, { serverReflectionInfo: serverReflectionInfo });
}

/** The files that the services need, by name and by the symbols that they declare. */
class Described {
  readonly #services: readonly DescService[];
  readonly #files = new Map<string, DescFile>();
  readonly #symbols = new Map<string, DescFile>();

  constructor(services: readonly DescService[]) {
    this.#services = services;
    for (const { file } of services) this.#add(file);
    this.#add(file_google_rpc_error_details);
  }

  #add(file: DescFile): void {
    if (this.#files.has(file.proto.name)) return;
    this.#files.set(file.proto.name, file);
    file.dependencies.forEach((dependency) => void this.#add(dependency));
    for (const type of nestedTypes(file)) {
      this.#symbols.set(type.typeName, file);
      const inner =
        type.kind === 'service'
          ? type.methods
          : type.kind === 'message'
            ? [...type.fields, ...type.oneofs]
            : type.kind === 'enum'
              ? type.values
              : [];
      for (const { name } of inner) this.#symbols.set(`${type.typeName}.${name}`, file);
    }
  }

  describe({ case: asked, value }: ReflectionRequest) {
    const name = String(value);
    switch (asked) {
      case 'listServices': {
        const service = this.#services.map(({ typeName }) => ({ name: typeName }));
        return { case: 'listServicesResponse', value: { service } } as const;
      }
      case 'fileByFilename':
        return this.#found(this.#files.get(name));
      case 'fileContainingSymbol':
        return this.#found(this.#symbols.get(name));
      case 'allExtensionNumbersOfType':
        // No file declares extensions.
        return this.#symbols.has(name)
          ? ({ case: 'allExtensionNumbersResponse', value: { baseTypeName: name } } as const)
          : this.#found(undefined);
      default:
        return this.#found(undefined);
    }
  }

  #found(file: DescFile | undefined) {
    if (file === undefined) {
      const value = { errorCode: Code.NotFound, errorMessage: 'not declared here' };
      return { case: 'errorResponse', value } as const;
    }
    const needed = new Set<DescFile>();
    const need = (one: DescFile) => {
      if (needed.has(one)) return;
      needed.add(one);
      one.dependencies.forEach(need);
    };
    need(file);
    const fileDescriptorProto = [...needed].map(({ proto }) => toBinary(FileDescriptorProtoSchema, proto));
    return { case: 'fileDescriptorResponse', value: { fileDescriptorProto } } as const;
  }
}
