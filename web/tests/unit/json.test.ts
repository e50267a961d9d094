import { expect, test } from 'vitest';

import { isLong, parse } from '../../src/lib/json';

// Node has it from 21 on; the browsers since 2023 to 2025.
test.runIf('rawJSON' in JSON)('an integer beyond 2^53 keeps its digits on its way in and out', () => {
  const text = '{"id":9007199254740993,"rows":[18446744073709551615,-9223372036854775808],"n":1}';
  const value = parse(text) as { id: unknown; n: unknown };
  expect(JSON.stringify(value)).toBe(text);
  expect([isLong(value.id), isLong(value.n)]).toEqual([true, false]);
});

test('everything else is read as ever', () => {
  const text =
    '{"a":"9007199254740993","b":0.1234567890123456,"c":[null,true,{}],"d":1e300,"e":9007199254740991}';
  expect(parse(text)).toEqual(JSON.parse(text));
});
