import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { Address, fragmentOf, parseLines, pathOf } from '../../src/lib/address.svelte';
import {
  NO_FILTER,
  isEmpty,
  parseFilter,
  toQuery,
  toggled,
  withSearch,
  withoutText,
} from '../../src/lib/filter';
import { KEYS, deedOf } from '../../src/lib/keys';
import { fieldsOf, initialValues, paramsOf } from '../../src/lib/schema';

const filterOf = (query: string) => parseFilter(new URLSearchParams(query));

describe('filter', () => {
  test.for([
    'min_level=WARNING',
    'level=INFO,ERROR',
    'source=git&source=db.pool&source=a%2Cb',
    'search=a&search=b&exclude=c&regex=true',
    'meta.index=documents&meta.n=7',
    'since=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00Z',
  ])('%s is the same filter after a round', (query) => {
    const again = toQuery(filterOf(query));
    expect([...again]).toEqual([...new URLSearchParams(query)]);
    expect(toQuery(parseFilter(again)).toString()).toBe(again.toString());
  });

  test.for([
    ['level=error', ['ERROR']],
    ['min_level=warning', ['WARNING', 'ERROR']],
    ['min_level=DEBUG', []],
    ['level=INFO&level=DEBUG&min_level=INFO', ['INFO']],
    ['level=NONSENSE', []],
  ] as const)('%s means %j', ([query, levels]) => {
    expect(filterOf(query).levels).toEqual(levels);
  });

  test('what the page does not know is not sent on', () => {
    expect(isEmpty(filterOf('find=x&tomorrow=1&regex=true'))).toBe(true);
  });

  test('one more text to find is quoted where the others are expressions', () => {
    const plain = { ...NO_FILTER, search: ['a.b'] };
    expect(withSearch(plain, 'c+', true).search).toEqual(['a\\.b', 'c+']);
    expect(withSearch({ ...plain, regex: true }, 'c+', false).search).toEqual(['a.b', 'c\\+']);
    expect(withSearch(NO_FILTER, 'c+', true)).toMatchObject({ search: ['c+'], regex: true });
  });

  test('a plain text to be left out is quoted beside expressions', () => {
    expect(withoutText({ ...NO_FILTER, search: ['a+'], regex: true }, 'f(x)').exclude).toEqual(['f\\(x\\)']);
    expect(withoutText(NO_FILTER, 'f(x)').exclude).toEqual(['f(x)']);
  });

  test('a choice is there and not there by turns', () => {
    expect(toggled(toggled(['a'], 'b'), 'a')).toEqual(['b']);
  });
});

describe('address', () => {
  let address: Address;
  beforeEach(() => history.replaceState(null, '', '/tasks/ID?level=ERROR&find=x#L5-L7'));
  afterEach(() => address.close());

  test('says the task, the filter, the text and the lines', () => {
    address = new Address();
    expect(address).toMatchObject({
      task: 'ID',
      find: { text: 'x', regex: false },
      lines: { from: 5, to: 7 },
    });
    expect(address.filter.levels).toEqual(['ERROR']);
    expect(address.path).toBe('/tasks/ID?level=ERROR&find=x#L5-L7');
  });

  test('another task begins without a filter', () => {
    address = new Address();
    address.go('OTHER');
    expect(location.pathname + location.search + location.hash).toBe('/tasks/OTHER');
  });

  test('a filter is a step that can be taken back', () => {
    address = new Address();
    const steps = history.length;
    address.setFilter({ ...address.filter, sources: ['git'] });
    address.setFilter({ ...address.filter, sources: ['git'] });
    expect(history.length).toBe(steps + 1);
    expect(location.search).toBe('?level=ERROR&source=git&find=x');
  });

  test('Back is heard of', () => {
    address = new Address();
    let visits = 0;
    address.visited = () => visits++;
    history.replaceState(null, '', '/tasks/OTHER');
    dispatchEvent(new PopStateEvent('popstate'));
    expect([visits, address.task]).toEqual([1, 'OTHER']);
  });

  test.for([
    ['#L5', { from: 5, to: 5 }],
    ['#L9-L5', { from: 5, to: 9 }],
    ['#L9-5', { from: 5, to: 9 }],
    ['#L0', null],
    ['#L5-', null],
    ['#other', null],
    ['', null],
  ] as const)('the fragment %s', ([hash, lines]) => {
    expect(parseLines(hash)).toEqual(lines);
  });

  test('of one line the fragment is short', () => {
    expect(fragmentOf({ from: 3, to: 3 })).toBe('#L3');
    expect(pathOf(null, NO_FILTER, { text: '', regex: false }, null)).toBe('/');
  });
});

describe('keys', () => {
  function pressed(key: string, target: HTMLElement = document.body, more: KeyboardEventInit = {}) {
    let deed: ReturnType<typeof deedOf> = null;
    const listener = (event: KeyboardEvent) => (deed = deedOf(event));
    addEventListener('keydown', listener);
    target.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, ...more }));
    removeEventListener('keydown', listener);
    return deed;
  }

  test('no key does two things', () => {
    const all = KEYS.flatMap(({ keys }) => keys as readonly string[]);
    expect(new Set(all).size).toBe(all.length);
  });

  test('each key of the tradition is bound', () => {
    for (const key of 'jkgG/nNeEwWfxcyzt?') expect(pressed(key), key).not.toBeNull();
  });

  test('what is typed into a field, or held with Control, is not ours', () => {
    const field = document.body.appendChild(document.createElement('input'));
    expect(pressed('j', field)).toBeNull();
    expect(pressed('j', document.body, { ctrlKey: true })).toBeNull();
    const button = document.body.appendChild(document.createElement('button'));
    expect(pressed('Enter', button)).toBeNull();
    expect(pressed('j', button)).toBe('down');
  });

  test('the detail is scrolled with the keys that scroll, where it has the focus', () => {
    const aside = document.body.appendChild(document.createElement('aside'));
    expect(pressed('PageDown', aside)).toBeNull();
    expect(pressed('j', aside)).toBe('down');
  });
});

describe('forms from schemas', () => {
  const schema = {
    type: 'object',
    $defs: {
      Remote: {
        type: 'object',
        properties: {
          url: { type: 'string' },
          password: { type: 'string', format: 'password', writeOnly: true },
        },
        required: ['url'],
      },
    },
    properties: {
      action: { enum: ['clone', 'pull'], type: 'string' },
      depth: { anyOf: [{ type: 'integer' }, { type: 'null' }], default: null },
      keep: { type: 'integer', default: 3 },
      verify: { type: 'boolean', default: true },
      exclude: { type: 'array', items: { type: 'string' } },
      remote: { $ref: '#/$defs/Remote' },
      free: {},
      target: { type: 'string', default: 'main', title: 'Branch to use' },
    },
    required: ['action'],
  };
  const fields = fieldsOf(schema);
  const typed = (more: Record<string, string | boolean>) =>
    paramsOf(fields, { ...initialValues(fields), ...more });

  test('each kind of value has its kind of field', () => {
    expect(fields.map(({ name, kind }) => [name, kind])).toEqual([
      ['action', 'choice'],
      ['depth', 'integer'],
      ['keep', 'integer'],
      ['verify', 'flag'],
      ['exclude', 'list'],
      ['remote', 'object'],
      ['free', 'json'],
      ['target', 'text'],
    ]);
    expect(fields[5]?.fields.map(({ path, kind, required }) => [path, kind, required])).toEqual([
      ['params.remote.url', 'text', true],
      ['params.remote.password', 'secret', false],
    ]);
    expect(fields[7]).toMatchObject({ label: 'Branch to use', placeholder: 'main' });
  });

  test('what was left alone is left out, so that defaults hold', () => {
    expect(typed({})).toEqual({});
    expect(typed({ 'params.action': '"pull"', 'params.verify': false })).toEqual({
      action: 'pull',
      verify: false,
    });
  });

  test('numbers are numbers, and what is none is the server’s to refuse', () => {
    expect(typed({ 'params.depth': '5', 'params.keep': 'many' })).toEqual({ depth: 5, keep: 'many' });
  });

  test('lists, objects and JSON', () => {
    expect(
      typed({
        'params.exclude': '*.pyc\n\nnode_modules/',
        'params.remote.url': '5',
        'params.free': '{"a": [1]}',
      }),
    ).toEqual({
      exclude: ['*.pyc', 'node_modules/'],
      remote: { url: '5' },
      free: { a: [1] },
    });
  });

  test('a plugin without a schema has no fields', () => {
    expect(fieldsOf(null)).toEqual([]);
  });
});
