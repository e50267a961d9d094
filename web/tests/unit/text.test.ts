import { describe, expect, test } from 'vitest';

import { readAnsi, stripAnsi } from '../../src/lib/ansi';
import { linesOf, widestOf, widthOf } from '../../src/lib/cells';
import { findFolded, foldCase } from '../../src/lib/fold';
import { anyOf, isLinear, needleOf } from '../../src/lib/needle';
import { inWords, piecesOf } from '../../src/lib/pieces';
import { isOwn } from '../../src/lib/frames';
import { shownOf } from '../../src/lib/shown';
import { entry } from './entries';

describe('ansi', () => {
  test('colours become classes, and the rest of the escape is gone', () => {
    expect(readAnsi('\x1b[1;31mbad\x1b[0m fine')).toEqual([
      { text: 'bad', style: 'f1 bold' },
      { text: ' fine', style: '' },
    ]);
  });

  test.for([
    ['bright and background', '\x1b[92;41mx', 'f2 g1'],
    ['the first 16 of 256', '\x1b[38;5;3mx', 'f3'],
    ['another of 256 is left as text is', '\x1b[38;5;200mx', ''],
    ['true colour does not eat what follows', '\x1b[38;2;1;2;3;4mx', 'underline'],
    ['an empty SGR is a reset', '\x1b[31m\x1b[mx', ''],
  ] as const)('%s', ([, text, style]) => {
    expect(readAnsi(text)).toEqual([{ text: 'x', style }]);
  });

  test.for([
    ['clearing the screen', 'a\x1b[2Jb'],
    ['a title', 'a\x1b]0;title\x07b'],
    ['a link', 'a\x1b]8;;http://evil.example\x1b\\b'],
    ['a device control string', 'a\x1bP1$r\x1b\\b'],
    ['a charset', 'a\x1b(Bb'],
  ] as const)('%s is dropped', ([, text]) => {
    expect(stripAnsi(text)).toBe('ab');
  });

  test('a sequence that does not end swallows nothing', () => {
    expect(stripAnsi('a\x1b]0;never ended and all this text')).toContain('and all this text');
  });
});

describe('case folding', () => {
  test.for([
    ['strasse', 'die Straße', [[4, 10]]],
    ['ß', 'STRASSE', [[4, 6]]],
    ['ошибка', 'ОШИБКА!', [[0, 6]]],
    [
      'σ',
      'ΣΑΣς',
      [
        [0, 1],
        [2, 3],
        [3, 4],
      ],
    ],
    ['x', 'ab', []],
    [
      'a',
      'aAa',
      [
        [0, 1],
        [1, 2],
        [2, 3],
      ],
    ],
  ] as const)('%s is found in %s', ([needle, text, places]) => {
    expect(findFolded(text, foldCase(needle))).toEqual(places);
  });

  test('an emoji before a match does not move its place', () => {
    expect(findFolded('👍 Maß', foldCase('mass'))).toEqual([[3, 6]]);
  });

  test('the dotless i stays itself', () => {
    expect(foldCase('ıI')).toBe('ıi');
  });
});

describe('what is searched for', () => {
  test('an expression marks its matches, in any case unless it says otherwise', () => {
    expect(needleOf('err(or)?', true)?.('Error err')).toEqual([
      [0, 5],
      [6, 9],
    ]);
    expect(needleOf('(?-i)err', true)?.('Err err')).toEqual([[4, 7]]);
  });

  test.for(['(a+)+$', '(a|aa)*b', '(x)\\1', '.*.*.*='])(
    '%s could take for ever, and marks nothing',
    (search) => {
      expect(isLinear(search)).toBe(false);
      expect(needleOf(search, true)).toBeNull();
    },
  );

  test.for(['a+b*', '[*+]+x', '\\(+', 'GET .* 5\\d\\d', '\\d{3}'])('%s is harmless', (search) => {
    expect(isLinear(search)).toBe(true);
  });

  test('what is no expression here marks nothing', () => {
    expect(needleOf('(', true)).toBeNull();
    expect(needleOf('', false)).toBeNull();
  });

  test('several are marked together, overlaps once', () => {
    expect(anyOf([needleOf('abc', false), needleOf('cd', false), null])?.('abcd cd')).toEqual([
      [0, 4],
      [5, 7],
    ]);
  });
});

describe('pieces of a message', () => {
  test('a plain message is none', () => {
    expect(piecesOf('just text', null)).toBeNull();
    expect(piecesOf('just text', needleOf('other', false))).toBeNull();
  });

  test('markup stays text', () => {
    expect(piecesOf('<img src=x onerror=alert(1)>', null)).toBeNull();
  });

  test('an override is named, and stays in the text for whoever copies it', () => {
    const pieces = piecesOf('a\u202egnp.exe', null);
    expect(pieces).toEqual([
      { text: 'a', style: '' },
      { text: '\u202e', style: '', code: 'U+202E' },
      { text: 'gnp.exe', style: '' },
    ]);
  });

  test('in a tooltip its name stands for it', () => {
    expect(inWords('a\u202egnp.exe\x1b[31m')).toBe('a[U+202E]gnp.exe');
    expect(inWords('Straße')).toBe('Straße');
  });

  test('only http and https addresses are links, without the sentence around them', () => {
    const hrefs = (text: string) => piecesOf(text, null)?.flatMap(({ href }) => href ?? []) ?? [];
    expect(hrefs('see https://example.com/a?b=1, (http://x.example/y).')).toEqual([
      'https://example.com/a?b=1',
      'http://x.example/y',
    ]);
    expect(hrefs('javascript://alert(1) data://x file:///etc/passwd')).toEqual([]);
  });

  test('a match across colours is marked in each', () => {
    const pieces = piecesOf('\x1b[31mre\x1b[32mtry\x1b[0m now', needleOf('retry', false));
    expect(pieces).toEqual([
      { text: 're', style: 'f1', mark: true },
      { text: 'try', style: 'f2', mark: true },
      { text: ' now', style: '' },
    ]);
  });

  test('together they are the message, whatever is in it', () => {
    const message = 'a\x07b \u2066https://x.example/ß\u2069 \x1b[1mend\ttab\nline';
    const pieces = piecesOf(message, needleOf('s', false)) ?? [];
    expect(pieces.map(({ text }) => text).join('')).toBe(stripAnsi(message));
  });
});

describe('cells', () => {
  test.for([
    ['plain', 5],
    ['日本', 4],
    ['e\u0301', 1],
    ['👍', 2],
    ['a\tb', 9],
    ['', 0],
  ] as const)('%s has its width', ([text, cells]) => {
    expect(widthOf(text)).toBe(cells);
  });

  test.for([
    ['short', 10, 1],
    ['a b', 0, 1],
    ['one\ntwo\n', 0, 3],
    ['aaaa bbbb', 5, 2],
    ['aaaa bbbb cc', 9, 2],
    ['aaaaaaaaaaaa', 5, 3],
    ['日本日本', 5, 2],
    ['', 10, 1],
  ] as const)('%s in %i columns', ([text, columns, lines]) => {
    expect(linesOf(text, columns)).toBe(lines);
  });

  test('the widest line counts', () => {
    expect(widestOf('a\nabc\nab')).toBe(3);
  });
});

describe('what a row shows', () => {
  const exception = {
    type: 'ValueError',
    message: 'no',
    frames: [{ file: '/app/x.py', line: 3, function: 'f', code: 'raise' }],
    cause: null,
  };

  test('a long text shows its beginning and how much more there is', () => {
    const shown = shownOf(
      entry(1, { message: Array.from({ length: 40 }, (_, i) => `l${i}`).join('\n') }),
      false,
    );
    expect(shown.text.split('\n')).toHaveLength(16);
    expect(shown.more).toBe('24 more lines');
  });

  test('an exception is its message and its line, not its traceback', () => {
    const shown = shownOf(entry(1, { message: 'it failed\nTraceback…\n…', metadata: { exception } }), false);
    expect(shown).toEqual({ text: 'it failed\nValueError: no', fields: '', more: '1 frame' });
  });

  test('a first line that names the exception is not followed by its name again', () => {
    const message = 'failed after 3.2 s: ValueError: no\nTraceback…\n…';
    expect(shownOf(entry(1, { message, metadata: { exception } }), false).text).toBe(
      'failed after 3.2 s: ValueError: no',
    );
  });

  test('whoever asks for all of it gets all of it', () => {
    const message = 'x'.repeat(9_000);
    expect(shownOf(entry(1, { message }), false).text.length).toBeLessThan(message.length);
    expect(shownOf(entry(1, { message }), true)).toEqual({ text: message, fields: '', more: '' });
  });

  test('fields stand behind the message, but for what the row tells by other means', () => {
    const metadata = {
      path: '/a',
      n: 7,
      words: 'two words',
      deep: { b: [1] },
      group: { id: 'g' },
      stream: 'stdout',
    };
    expect(shownOf(entry(1, { message: 'stored', metadata }), false)).toEqual({
      text: 'stored',
      fields: ' path=/a n=7 words="two words" deep={"b":[1]}',
      more: '',
    });
    const long = shownOf(entry(1, { message: 'm', metadata: { x: 'y'.repeat(9_000) } }), false).fields;
    expect(long).toHaveLength(201);
  });

  test('metadata that only looks like an exception is metadata', () => {
    const metadata = { exception: { type: 1, frames: 'none' } };
    expect(shownOf(entry(1, { message: 'plain', metadata }), false).text).toBe('plain');
  });

  test.for([
    ['/app/jobs/reindex.py', true],
    ['/usr/lib/python3.12/asyncio/base.py', false],
    ['/app/.venv/lib/python3.11/site-packages/x/y.py', false],
    ['<frozen importlib>', false],
    ['/srv/plugins/mine.py', true],
  ] as const)('a frame of %s is own: %s', ([file, own]) => {
    expect(isOwn({ file, line: 1, function: 'f', code: null })).toBe(own);
  });
});
