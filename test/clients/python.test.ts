// If this fails, backends in Python cannot guard themselves, or do so otherwise than the other languages.
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { MisbehavingServer } from '../support/misbehaving-server.ts';
import { type Finished, run } from '../support/process.ts';
import { requires } from '../support/requires.ts';
import { ROOT, tool } from '../support/tools.ts';
import { guardedBackend, protosIn, trackedFiles } from './backend.ts';
import { localVectorsIn } from './local-vectors.ts';

const LIBRARY = join(ROOT, 'clients/python');
const TIMEOUT = { timeout: 120_000 };
const SOURCES = { PYTHONPATH: join(LIBRARY, 'src'), PYTHONDONTWRITEBYTECODE: '1' };

const python = (args: string[], env: Record<string, string> = {}) =>
  run(tool('python'), args, { cwd: LIBRARY, env });
const worked = ({ code, stdout, stderr }: Finished) => {
  expect(code, stdout + stderr).toBe(0);
  return stdout;
};

/** The argument is a FileDescriptorSet. Other messages of the protos do not matter. */
const FITS_PROTOS = `
import sys
from google.protobuf import descriptor_pb2
from apikeyd._generated import auth_pb2, key_pb2
files = descriptor_pb2.FileDescriptorSet.FromString(open(sys.argv[1], "rb").read()).file
messages = {(file.package, message.name): message for file in files for message in file.message_type}
enums = {(file.package, enum.name): enum for file in files for enum in file.enum_type}
def facts(field): return field.name, field.number, field.type, field.label, field.type_name, field.proto3_optional
for module in (auth_pb2, key_pb2):
    ours = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(ours)
    for message in ours.message_type:
        there = set(map(facts, messages[ours.package, message.name].field))
        assert there.issuperset(map(facts, message.field)), f"{message.name} has changed: bash clients/generate.sh python"
    for enum in ours.enum_type:
        there = {(value.name, value.number) for value in enums[ours.package, enum.name].value}
        assert there.issuperset((value.name, value.number) for value in enum.value), f"{enum.name} has changed"
`;

requires('python').describe('the library in Python', () => {
  const folder = mkdtempSync(join(tmpdir(), 'apikeyd-python-'));
  const servers = [new MisbehavingServer(), new MisbehavingServer(), new MisbehavingServer()];
  afterAll(async () => {
    await Promise.all(servers.map((server) => server.stop()));
    rmSync(folder, { recursive: true, force: true });
  });

  it('passes its own tests', TIMEOUT, async () => {
    const { code, stderr } = await python(['-m', 'unittest', 'tests/test_guard.py', 'tests/test_local.py'], {
      ...SOURCES,
      ...localVectorsIn(folder),
    });
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(/Ran 33 tests[\s\S]*\nOK\n$/);
  });

  it('passes the conformance vectors in ASGI, WSGI and grpc.aio', TIMEOUT, async () => {
    const addresses = await Promise.all(servers.map((server) => server.start()));
    const env = {
      ...SOURCES,
      APIKEYD_CONFORMANCE: join(ROOT, 'clients/conformance'),
      APIKEYD_MISBEHAVING: JSON.stringify(addresses),
    };
    // Side by side, each with its own server: most of the time is spent waiting.
    const parts = ['scopes', 'addresses', 'asgi', 'wsgi', 'grpc'];
    const test = (part: string) => `tests.test_conformance.Conformance.test_${part}`;
    const all = await Promise.all([
      python(['-m', 'unittest', ...parts.slice(0, 3).map(test)], env),
      ...parts.slice(3).map((part) => python(['-m', 'unittest', test(part)], env)),
    ]);
    for (const { code, stderr } of all) expect(code, stderr).toBe(0);
    expect(all.map(({ stderr }) => /Ran \d+ tests?|skipped/g.exec(stderr)?.[0])).toEqual([
      'Ran 3 tests',
      'Ran 1 test',
      'Ran 1 test',
    ]);
    for (const { stderr } of all) expect(stderr).not.toContain('skipped');
  });

  it('guards an application in a new environment, installed as a wheel', TIMEOUT, async () => {
    for (const path of await trackedFiles('clients/python')) {
      const to = join(folder, 'library', path);
      mkdirSync(dirname(to), { recursive: true });
      cpSync(join(LIBRARY, path), to);
    }
    // Nothing is downloaded: the dependencies are those of the test environment.
    const pip = ['-m', 'pip', '--disable-pip-version-check', '--no-input'];
    const build = `from setuptools import build_meta; build_meta.build_wheel(${JSON.stringify(folder)})`;
    worked(await run(tool('python'), ['-c', build], { cwd: join(folder, 'library') }));
    const wheel = readdirSync(folder).find((name) => name.endsWith('.whl')) ?? '';
    expect(wheel).toMatch(/^apikeyd-\d+\.\d+\.\d+-py3-none-any\.whl$/);
    const fresh = join(folder, 'fresh');
    worked(await python(['-m', 'venv', '--without-pip', fresh]));
    const freshPython = join(fresh, 'bin/python');
    const into = ['--python', freshPython, 'install', '-q', '--no-deps', '--no-index', join(folder, wheel)];
    worked(await python([...pip, ...into]));
    const purelib = ['-c', 'import sysconfig; print(sysconfig.get_path("purelib"))'];
    const ofTests = worked(await python(purelib)).trim();
    const ofFresh = worked(await run(freshPython, purelib)).trim();
    writeFileSync(join(ofFresh, 'dependencies.pth'), `${ofTests}\n`);
    await guardedBackend(freshPython, [join(ROOT, 'examples/python/guard.py')]);
  });

  it('has generated code that matches the protos', TIMEOUT, async () => {
    worked(await python(['-c', FITS_PROTOS, await protosIn(folder)], SOURCES));
  });
});
