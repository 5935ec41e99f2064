import { type DescFile, toBinary } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import { ReflectionService } from '@grpc/reflection';
import { file_google_rpc_error_details } from '../../gen/google/rpc/error_details_pb.ts';
import type { Mounted } from './method.ts';

type PackageDefinition = ConstructorParameters<typeof ReflectionService>[0];

/** Server reflection, v1 and v1alpha, from the generated descriptors; error details are described too. */
export function reflection(services: readonly Mounted[]): ReflectionService {
  const files = new Map<string, Buffer>();
  const add = (file: DescFile) => {
    if (files.has(file.proto.name)) return;
    file.dependencies.forEach(add);
    files.set(file.proto.name, Buffer.from(toBinary(FileDescriptorProtoSchema, file.proto)));
  };
  for (const { service } of services) add(service.file);
  add(file_google_rpc_error_details);
  const described = { fileDescriptorProtos: [...files.values()] };
  // The library reads only these bytes; the rest of a PackageDefinition is for making clients.
  return new ReflectionService({ described } as unknown as PackageDefinition, {
    services: services.map(({ service }) => service.typeName),
  });
}
