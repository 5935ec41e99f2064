// If this fails, a call is read with another call's headers: another caller's key, another method.
import { describe, expect, it } from 'vitest';
import { encodeHeaders, HpackDecoder, HpackError } from '../../../src/transport/http2/hpack.ts';

const read = (decoder: HpackDecoder, hex: string) => {
  const fields: string[] = [];
  decoder.decode(Buffer.from(hex, 'hex'), ({ name, value }) => fields.push(`${name}: ${value}`));
  return fields;
};

describe('HPACK', () => {
  it.each([
    [
      'plain, with a growing table (RFC 7541, C.3)',
      [
        '828684410f7777772e6578616d706c652e636f6d',
        '828684be58086e6f2d6361636865',
        '828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565',
      ],
    ],
    [
      'Huffman-coded (RFC 7541, C.4)',
      [
        '828684418cf1e3c2e5f23a6ba0ab90f4ff',
        '828684be5886a8eb10649cbf',
        '828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf',
      ],
    ],
  ])('reads requests, %s', (_what, blocks) => {
    const decoder = new HpackDecoder();
    expect(blocks.map((block) => read(decoder, block))).toEqual([
      [':method: GET', ':scheme: http', ':path: /', ':authority: www.example.com'],
      [':method: GET', ':scheme: http', ':path: /', ':authority: www.example.com', 'cache-control: no-cache'],
      [
        ':method: GET',
        ':scheme: https',
        ':path: /index.html',
        ':authority: www.example.com',
        'custom-key: custom-value',
      ],
    ]);
  });

  it('forgets the oldest entries when the table is full, and all when it is made empty', () => {
    const decoder = new HpackDecoder();
    const add = (value: string) => {
      const bytes = Buffer.from(value);
      return `40016e7f${Buffer.from([((bytes.length - 127) % 128) | 0x80, (bytes.length - 127) >> 7]).toString('hex')}${bytes.toString('hex')}`;
    };
    for (const letter of 'abcde')
      expect(read(decoder, add(letter.repeat(1000)))).toEqual([`n: ${letter.repeat(1000)}`]);
    // Three of 1 033 bytes fit into 4 096.
    expect(read(decoder, 'be')).toEqual([`n: ${'e'.repeat(1000)}`]);
    expect(read(decoder, 'c0')).toEqual([`n: ${'c'.repeat(1000)}`]);
    expect(() => read(decoder, 'c1')).toThrow(HpackError);
    expect(read(decoder, '203fe11f')).toEqual([]);
    expect(() => read(decoder, 'be')).toThrow(HpackError);
  });

  it.each([
    ['index 0', '80'],
    ['an index beyond the tables', 'ff00'],
    ['a string cut off', '400161ff'],
    ['an integer without end', `7f${'80'.repeat(40)}01`],
    ['a table larger than allowed', '3fe21f'],
    ['a table size after a field', '8220'],
    ['padding of zeros', '4001618100'],
    ['the end-of-string symbol', '40016184ffffffff'],
  ])('refuses %s', (_what, block) => {
    expect(() => read(new HpackDecoder(), block)).toThrow(HpackError);
  });

  it('reads what it writes', () => {
    const fields = [
      [':status', '200'],
      ['content-type', 'application/grpc'],
      ['grpc-status', '8'],
      ['grpc-status-details-bin', 'x'.repeat(5000)],
      ['empty', ''],
    ] as const;
    const block = encodeHeaders(fields).toString('hex');
    expect(read(new HpackDecoder(), block)).toEqual(fields.map(([name, value]) => `${name}: ${value}`));
  });
});
