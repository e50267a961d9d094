/**
 * A plugin's JSON Schema as the fields of a form, and what was typed into them as params.
 *
 * The server validates; a form only helps to write. So what a schema says that is not known
 * here makes a field for JSON, and no value is held back because the page finds it wrong.
 */
import { parse } from './json';

export type Schema = Record<string, unknown>;

export type FieldKind =
  'text' | 'secret' | 'number' | 'integer' | 'flag' | 'choice' | 'list' | 'object' | 'json';

export interface Field {
  name: string;
  /** As the server names it in a fault: `params.remote.url`. */
  path: string;
  label: string;
  description: string;
  kind: FieldKind;
  required: boolean;
  choices: unknown[];
  /** What the field holds before anybody types: text, a flag, or what a choice has. */
  initial: string | boolean;
  placeholder: string;
  multiline: boolean;
  fields: Field[];
}

/** What was typed, by the field's path. */
export type Typed = Record<string, string | boolean>;

/** The fields of `schema`, which describes an object. */
export function fieldsOf(schema: Schema | null, path = 'params'): Field[] {
  return schema ? fieldsIn(schema, schema, path, 0) : [];
}

function fieldsIn(schema: Schema, root: Schema, path: string, depth: number): Field[] {
  const properties = (schema.properties ?? {}) as Record<string, Schema>;
  const required = new Set((schema.required ?? []) as string[]);
  return Object.entries(properties).map(([name, raw]) =>
    fieldOf(name, raw, root, `${path}.${name}`, required.has(name), depth),
  );
}

function fieldOf(
  name: string,
  raw: Schema,
  root: Schema,
  path: string,
  required: boolean,
  depth: number,
): Field {
  const schema = plain(raw, root);
  const kind = kindOf(schema, depth);
  const preset = raw.default ?? schema.default;
  return {
    name,
    path,
    label: labelOf(name, raw, schema),
    description: textOf(raw.description ?? schema.description),
    kind,
    required,
    choices: choicesOf(schema),
    initial: initialOf(kind, preset),
    placeholder: required || preset === undefined || preset === null ? '' : shown(preset),
    multiline: Number(schema.maxLength ?? 0) > 10_000,
    fields: kind === 'object' ? fieldsIn(schema, root, path, depth + 1) : [],
  };
}

/** `schema` without reference, and without null as the other possibility. */
function plain(schema: Schema, root: Schema): Schema {
  let found = schema;
  for (let steps = 0; steps < 20; steps++) {
    const options = (found.anyOf ?? found.oneOf) as Schema[] | undefined;
    const rest = options?.filter((option) => option.type !== 'null');
    const all = found.allOf as Schema[] | undefined;
    if (typeof found.$ref === 'string') found = referred(found.$ref, root);
    else if (rest?.length === 1 && rest[0])
      found = { ...found, anyOf: undefined, oneOf: undefined, ...rest[0] };
    else if (all?.length === 1 && all[0]) found = { ...found, allOf: undefined, ...all[0] };
    else break;
  }
  return found;
}

function referred(reference: string, root: Schema): Schema {
  let found: unknown = root;
  for (const part of reference.replace(/^#\//, '').split('/')) found = (found as Schema | undefined)?.[part];
  return (found as Schema | undefined) ?? {};
}

function kindOf(schema: Schema, depth: number): FieldKind {
  if (Array.isArray(schema.enum) || 'const' in schema) return 'choice';
  if (schema.type === 'string') return schema.writeOnly || schema.format === 'password' ? 'secret' : 'text';
  if (schema.type === 'integer' || schema.type === 'number') return schema.type;
  if (schema.type === 'boolean') return 'flag';
  if (schema.type === 'array' && (schema.items as Schema | undefined)?.type === 'string') return 'list';
  if (schema.type === 'object' && schema.properties && depth < 3) return 'object';
  return 'json';
}

function choicesOf(schema: Schema): unknown[] {
  return 'const' in schema ? [schema.const] : ((schema.enum as unknown[] | undefined) ?? []);
}

/** pydantic makes a title of the name; then the name itself is what people know. */
function labelOf(name: string, raw: Schema, schema: Schema): string {
  const title = textOf(raw.title ?? schema.title);
  return title && title.toLowerCase() !== name.replaceAll('_', ' ') ? title : name;
}

function initialOf(kind: FieldKind, preset: unknown): string | boolean {
  if (kind === 'flag') return preset === true;
  if (kind === 'choice') return preset === undefined || preset === null ? '' : JSON.stringify(preset);
  if (kind === 'list') return Array.isArray(preset) ? preset.join('\n') : '';
  return '';
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function shown(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** What the fields hold at first. */
export function initialValues(fields: readonly Field[]): Typed {
  const typed: Typed = {};
  for (const field of fields) {
    if (field.kind === 'object') Object.assign(typed, initialValues(field.fields));
    else typed[field.path] = field.initial;
  }
  return typed;
}

/**
 * The params that were typed. A field left as it was is left out, so that the plugin's own
 * default holds. What is no number or no JSON goes as text: the server says what is wrong with it.
 */
export function paramsOf(fields: readonly Field[], typed: Typed): Record<string, unknown> {
  const params: Record<string, unknown> = {};
  for (const field of fields) {
    const value = field.kind === 'object' ? objectOf(field, typed) : valueOf(field, typed[field.path]);
    if (value !== undefined) params[field.name] = value;
  }
  return params;
}

function objectOf(field: Field, typed: Typed): unknown {
  const value = paramsOf(field.fields, typed);
  return field.required || Object.keys(value).length ? value : undefined;
}

function valueOf(field: Field, typed: string | boolean | undefined): unknown {
  if (typed === undefined || typed === field.initial) {
    return field.required && field.kind === 'choice' && typed ? parse(String(typed)) : undefined;
  }
  if (typeof typed === 'boolean') return typed;
  if (field.kind === 'list') return typed.split('\n').filter((line) => line !== '');
  if (typed === '') return undefined;
  if (field.kind === 'text' || field.kind === 'secret') return typed;
  try {
    return parse(typed);
  } catch {
    return typed;
  }
}
