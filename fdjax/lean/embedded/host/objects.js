// Lean objects in wasm memory (32-bit layout of Lean 4.28), seen from JavaScript.
//
// An object is an address: reference count (4 bytes), size (2), `other` (1), tag (1),
// then the fields. Odd "addresses" are small boxed values. Compiled functions own
// their arguments unless noted, so callers pass `retain(x)` for what they keep.
'use strict';

const box = (value) => (value << 1) | 1;
const isBoxed = (object) => (object & 1) === 1;
const HEADER_BYTES = 8;
const NONE = box(0); // also Name.anonymous, List.nil, Option.none, ()

const STRING_COMPONENT = 1;

class LeanObjects {
  constructor(internals) {
    this.internals = internals;
  }

  // ---- calls
  exported(name) {
    const found = this.internals.exports[name];
    if (found === undefined) throw Error('no export ' + name);
    return found;
  }

  call(name, ...args) {
    return this.exported(name)(...args) >>> 0;
  }

  // The object that a global variable of the compiled code holds (borrowed).
  global(name) {
    return this.word(this.exported(name).value);
  }

  // ---- fields
  word(address) {
    return this.internals.words[address >>> 2];
  }

  setWord(address, value) {
    this.internals.words[address >>> 2] = value;
  }

  byte(address) {
    return this.internals.bytes[address];
  }

  tag(object) {
    return this.byte(object + 7);
  }

  field(object, index) {
    return this.word(object + HEADER_BYTES + 4 * index);
  }

  setField(object, index, value) {
    this.setWord(object + HEADER_BYTES + 4 * index, value);
  }

  takeField(object, index) {
    return this.retain(this.field(object, index));
  }

  arraySize(array) {
    return this.word(array + 8);
  }

  element(array, index) {
    return this.word(array + 16 + 4 * index);
  }

  // Borrowed.
  elements(array) {
    return Array.from({ length: this.arraySize(array) }, (_, i) => this.element(array, i));
  }

  // ---- reference counts: positive for one thread, negative for shared, 0 for ever
  retain(object) {
    if (isBoxed(object)) return object;
    const count = this.word(object) | 0;
    if (count > 0) this.setWord(object, count + 1);
    else if (count < 0) Atomics.sub(this.signedWords(), object >>> 2, 1);
    return object;
  }

  release(object) {
    if (isBoxed(object)) return;
    const count = this.word(object) | 0;
    if (count > 1) this.setWord(object, count - 1);
    else if (count !== 0) this.exported('lean_dec_ref_cold')(object);
  }

  releaseAll(objects) {
    for (const object of objects) this.release(object);
  }

  isExclusive(object) {
    return (this.word(object) | 0) === 1;
  }

  signedWords() {
    return new Int32Array(this.internals.memory.buffer);
  }

  // ---- making objects
  constructorObject(tag, fields, scalarBytes = 0) {
    const scalars = (scalarBytes + 7) & ~7;
    const object = this.call(
      'lean_alloc_object', HEADER_BYTES + 4 * fields.length + scalars);
    this.setWord(object, 1);
    this.setWord(object + 4, (fields.length << 16) | (tag << 24));
    fields.forEach((field, index) => this.setField(object, index, field));
    const start = object + HEADER_BYTES + 4 * fields.length;
    this.internals.bytes.fill(0, start, start + scalars);
    return object;
  }

  some(value) {
    return this.constructorObject(1, [value]);
  }

  closure(tableIndex, arity) {
    const CLOSURE_TAG = 245;
    const object = this.call('lean_alloc_object', 16);
    this.setWord(object, 1);
    this.setWord(object + 4, CLOSURE_TAG << 24);
    this.setWord(object + 8, tableIndex);
    this.setWord(object + 12, arity); // upper half: no arguments applied yet
    return object;
  }

  string(text) {
    const bytes = Buffer.from(text, 'utf8');
    const copy = this.call('malloc', bytes.length + 1);
    this.internals.bytes.set(bytes, copy);
    const object = this.call('lean_mk_string_from_bytes', copy, bytes.length);
    this.exported('free')(copy);
    return object;
  }

  emptyArray() {
    return this.call('lean_mk_array', box(0), NONE);
  }

  // A dotted name without «» components.
  name(text) {
    return text.split('.').reduce(
      (prefix, part) => this.call('lean_name_mk_string', prefix, this.string(part)),
      NONE);
  }

  // ---- reading objects
  text(string) {
    const length = this.word(string + 8) - 1;
    const start = string + 20;
    return Buffer.from(this.internals.bytes.slice(start, start + length))
      .toString('utf8');
  }

  // Whether a name's last part is a number, which no text of a program can spell.
  isNumbered(name) {
    return !isBoxed(name) && this.tag(name) !== STRING_COMPONENT;
  }

  // Injective for our purpose: a component with a dot or a comma keeps its guillemets,
  // so no invented name can read like an axiom of the library.
  nameText(name) {
    if (isBoxed(name)) return '';
    let last;
    if (this.tag(name) === STRING_COMPONENT) {
      last = this.text(this.field(name, 1));
      if (!/^[^\s.,«»[\]]+$/.test(last)) last = '«' + last + '»';
    } else {
      last = String(this.field(name, 1) >>> 1);
    }
    const prefix = this.nameText(this.field(name, 0));
    return prefix ? prefix + '.' + last : last;
  }

  sameName(left, right) {
    return (this.call('lean_name_eq', left, right) & 0xff) === 1;
  }

  * list(list) {
    for (; !isBoxed(list); list = this.field(list, 1)) yield this.field(list, 0);
  }

  // The value of an EIO result; throws Lean's error.
  value(result, action) {
    if (this.tag(result) === 0) {
      const value = this.takeField(result, 0);
      this.release(result);
      return value;
    }
    const message = this.call('lean_io_error_to_string', this.takeField(result, 0));
    throw Error(action + ': ' + this.text(message));
  }
}

module.exports = { LeanObjects, box, isBoxed, NONE };
