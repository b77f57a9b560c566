// Imports, parsing and elaboration of single commands.
'use strict';
const { Worker } = require('worker_threads');
const path = require('path');
const { DEFINITION, PlainData, ofConstant, valueOf } = require('./constants.js');
const { box, isBoxed, NONE } = require('./objects.js');
const { isNode, kindOf, lastToken } = require('./syntax.js');

// Field numbers of Lean structures.
const STATE = { env: 0, messages: 1, scopes: 2 };
const SCOPE = { options: 1, namespace: 2, openDecls: 3 };
const MESSAGE = { fields: 5, severity: 1, isSilent: 2 };
const SEVERITY = ['information', 'warning', 'error'];
const CORE_STATE = { env: 0 };
const END = 'Lean.Parser.Command.eoi';
const CONTROL = { sequence: 0, token: 1, milliseconds: 2, fired: 3 };

const NO_DATA = { functions: [], growing: [], unlike: [], largest: 0, nodes: 0 };

class Elaborator {
  // `policy` says what counts as data in policy.py's words.
  constructor(lean, graceMs, policy = NO_DATA) {
    this.lean = lean;
    this.data = {
      functions: new Set(policy.functions),
      growing: new Set(policy.growing),
      unlike: new Set(policy.unlike),
      largest: policy.largest,
      nodes: policy.nodes,
    };
    this.known = 0; // the environment before the submission, while one is elaborated
    this.environments = new Map();
    this.control = new Int32Array(new SharedArrayBuffer(16));
    new Worker(path.join(__dirname, 'watchdog.js'), {
      workerData: {
        control: this.control.buffer, memory: lean.internals.memory, graceMs,
      },
    }).unref();
    this.compilesAll = false;
    this.limitCompiler();
  }

  // ---- code generation
  // Tactics compile and run their configuration (`simp +arith`) and the tactic blocks of
  // automatic parameters, both under names that Lean makes up. Where these are plain data
  // they are compiled, and nothing else of a submission is: what has no code cannot be
  // run, whatever asks for it.
  //
  // The package lacks the intermediate code of some library functions, and a definition
  // that cannot be compiled is still a definition: such failures are dropped. The
  // kernel never sees compiled code.
  limitCompiler() {
    const { lean } = this;
    const reference = lean.global('l_Lean_compileDeclsRef');
    const compile = lean.call('lean_st_ref_get', reference);
    const index = lean.module.addFunction((names, context, state, world) => {
      const done = () => lean.constructorObject(0, [box(0)]);
      if (!this.compilesAll && !this.mayCompile(names, state)) return done();
      const result = lean.call(
        'lean_apply_4', lean.retain(compile), names, context, state, world);
      if (lean.tag(result) === 0) return result;
      lean.release(result);
      return done();
    }, 'iiiii');
    const limited = lean.closure(index, 4);
    lean.release(lean.call('lean_st_ref_set', reference, limited));
  }

  // Whether all names of an array are Lean's own and stand for plain data. A coercion or
  // an instance of the submission would bring its own terms into a configuration.
  mayCompile(names, coreState) {
    const { lean } = this;
    if (!this.known) return false;
    const data = new PlainData(lean, this.known, this.data);
    const core = lean.call('lean_st_ref_get', coreState);
    const environment = lean.field(core, CORE_STATE.env);
    let may = true;
    for (let i = 0; may && i < lean.arraySize(names); i++) {
      const name = lean.element(names, i);
      may = this.isLeansOwn(name) && ofConstant(lean, environment, name, (constant) => (
        lean.tag(constant) === DEFINITION && data.has(valueOf(lean, constant))));
    }
    lean.release(core);
    return may;
  }

  // Whether no submission can spell the name: no part of a name in it begins with
  // `_tmp` or `_auto` (policy.reserved), and parts are no numbers.
  isLeansOwn(name) {
    const { lean } = this;
    const parts = lean.nameText(name).split('.');
    return lean.isNumbered(name)
      ? parts[0] === '_tmp' : /^_auto(Param|_\d+)$/.test(parts[parts.length - 1]);
  }

  // What `action` elaborates is trusted, and compiled.
  withCode(action) {
    this.compilesAll = true;
    try {
      return action();
    } finally {
      this.compilesAll = false;
    }
  }

  // ---- imports
  // Splits the `import` lines off; the caller releases what it gets.
  open(source) {
    const { lean } = this;
    const text = lean.string(source);
    const bytes = lean.word(text + 8) - 1;
    const input = lean.call(
      'l_Lean_Parser_mkInputContext___redArg', text, lean.string('<input>'), 1,
      box(bytes));
    const parsed = lean.value(
      lean.call('l_Lean_Parser_parseHeader', lean.retain(input)), 'header');
    const syntax = lean.takeField(parsed, 0);
    const rest = lean.field(parsed, 1);
    const parser = lean.takeField(rest, 0);
    const messages = lean.takeField(rest, 1);
    lean.release(parsed);
    const isHeaderless = !lastToken(lean, [syntax]);
    const imports = lean.call('l_Lean_Elab_headerToImports', syntax, 1);
    return { input, parser, messages, imports, isHeaderless };
  }

  importNames(imports) {
    const { lean } = this;
    const names = new Set();
    for (let i = 0; i < lean.arraySize(imports); i++) {
      names.add(lean.nameText(lean.field(lean.element(imports, i), 0)));
    }
    return [...names];
  }

  // The environment of a set of modules (borrowed); made once and kept.
  environment(names) {
    const key = names.filter((name) => name !== 'Init').sort().join('\n') || 'Init';
    if (!this.environments.has(key)) {
      const { lean } = this;
      const lines = key.split('\n').map((name) => 'import ' + name + '\n').join('');
      const { input, parser, messages, imports } = this.open(lines);
      const PRIVATE_LEVEL = 2;
      const result = lean.call(
        'l_Lean_importModules', imports, lean.retain(lean.global('l_Lean_Options_empty')),
        0, lean.emptyArray(), 1, 1, PRIVATE_LEVEL, lean.global('l_Lean_NameSet_empty'));
      for (const object of [input, parser, messages]) lean.release(object);
      this.environments.set(key, lean.value(result, 'import'));
    }
    return this.environments.get(key);
  }

  // Whether the environment of a state was made with that module.
  hasModule(state, name) {
    const { lean } = this;
    const found = lean.call(
      'l_Lean_Environment_getModuleIdx_x3f', lean.takeField(state, STATE.env),
      lean.name(name));
    lean.release(found);
    return !isBoxed(found);
  }

  options(values) {
    const { lean } = this;
    let options = lean.retain(lean.global('l_Lean_Options_empty'));
    for (const [key, value] of Object.entries(values)) {
      options = typeof value === 'number'
        ? lean.call('l_Lean_KVMap_setNat', options, lean.name(key), box(value))
        : lean.call('l_Lean_KVMap_setBool', options, lean.name(key), Number(value));
    }
    return options;
  }

  // ---- command states (owned by the caller)
  emptyLog() {
    return this.lean.retain(this.lean.global('l_Lean_MessageLog_empty'));
  }

  newState(environment, options) {
    return this.lean.call(
      'l_Lean_Elab_Command_mkState', this.lean.retain(environment), this.emptyLog(),
      options);
  }

  // A fresh state with the environment, open namespaces and options of another.
  continueState(state) {
    const { lean } = this;
    const scopes = lean.field(state, STATE.scopes);
    const options = lean.takeField(lean.field(scopes, 0), SCOPE.options);
    const next = this.newState(lean.field(state, STATE.env), options);
    lean.release(lean.field(next, STATE.scopes));
    lean.setField(next, STATE.scopes, lean.retain(scopes));
    return next;
  }

  namespaceOf(state) {
    const scope = this.lean.field(this.lean.field(state, STATE.scopes), 0);
    return this.lean.field(scope, SCOPE.namespace);
  }

  environmentOf(state) {
    return this.lean.field(state, STATE.env);
  }

  // ---- parsing
  // Parses one command; `cursor.parser` moves on.
  parse(cursor, state) {
    const { lean } = this;
    const scope = lean.field(lean.field(state, STATE.scopes), 0);
    const context = lean.constructorObject(0, [
      lean.takeField(state, STATE.env),
      lean.takeField(scope, SCOPE.options),
      lean.takeField(scope, SCOPE.namespace),
      lean.takeField(scope, SCOPE.openDecls),
    ]);
    const position = lean.takeField(cursor.parser, 0);
    const result = lean.call(
      'l_Lean_Parser_parseCommand', lean.retain(cursor.input), context, cursor.parser,
      this.emptyLog());
    const syntax = lean.takeField(result, 0);
    const rest = lean.field(result, 1);
    cursor.parser = lean.takeField(rest, 0);
    const messages = lean.takeField(rest, 1);
    lean.release(result);
    return { syntax, position, messages };
  }

  // Whether a command is the end of the text. For Lean, `#exit` and an `import` behind
  // another command are ends as well, and what follows them is never read.
  isEnd(syntax) {
    return isNode(this.lean, syntax) && kindOf(this.lean, syntax) === END;
  }

  hasErrors(log) {
    return (this.lean.call('l_Lean_MessageLog_hasErrors', log) & 1) === 1;
  }

  // ---- elaboration
  // Elaborates a parsed command. Owns `state`, returns the next one; messages are in it.
  elaborate(cursor, command, state, wallMs) {
    const { lean } = this;
    const reference = lean.call('lean_st_mk_ref', state);
    const token = lean.call('l_IO_CancelToken_new');
    const context = lean.constructorObject(0, [
      lean.takeField(cursor.input, 1), // file name
      lean.takeField(cursor.input, 2), // line table
      box(0), // recursion depth
      lean.retain(command.position),
      NONE, // macro stack
      NONE, // quotation context
      lean.retain(lean.global('l_Lean_firstFrontendMacroScope')),
      NONE, // syntax reference
      NONE, // incremental snapshot
      lean.some(lean.retain(token)),
    ], 1);
    this.arm(token, wallMs);
    let result;
    try {
      result = lean.call(
        'l_Lean_Elab_Command_elabCommandTopLevel', lean.retain(command.syntax), context,
        lean.retain(reference));
    } finally {
      this.disarm();
    }
    const interrupted = lean.tag(result) !== 0;
    lean.release(result);
    const next = lean.call('lean_st_ref_get', reference);
    lean.release(reference);
    lean.release(token);
    const timedOut = Atomics.load(this.control, CONTROL.fired) === 1;
    return { state: next, timedOut, interrupted };
  }

  // The same for a command of a submission. `known` is the environment (borrowed) before
  // all of it.
  elaborateUntrusted(known, cursor, command, state, wallMs) {
    this.known = known;
    try {
      return this.elaborate(cursor, command, state, wallMs);
    } finally {
      this.known = 0;
    }
  }

  arm(token, wallMs) {
    const { control } = this;
    Atomics.store(control, CONTROL.fired, 0);
    Atomics.store(control, CONTROL.token, token);
    Atomics.store(control, CONTROL.milliseconds, Math.max(1, Math.ceil(wallMs)));
    Atomics.add(control, CONTROL.sequence, 1);
    Atomics.notify(control, CONTROL.sequence);
  }

  disarm() {
    Atomics.store(this.control, CONTROL.token, 0);
    Atomics.add(this.control, CONTROL.sequence, 1);
    Atomics.notify(this.control, CONTROL.sequence);
  }

  // ---- messages
  messagesOf(state) {
    return this.lean.field(state, STATE.messages);
  }

  // Moves the messages out of a state that nobody else holds: Lean marks those of
  // earlier commands as reported and does not list them again.
  takeMessages(state) {
    const { lean } = this;
    if (!lean.isExclusive(state)) throw Error('the command state is shared');
    const log = lean.field(state, STATE.messages);
    lean.setField(state, STATE.messages, this.emptyLog());
    return log;
  }

  // Renders a log (borrowed), errors first, until the byte limit or the time is used
  // up. The messages are in source order again; `left_out` says that an error or a
  // warning is not among them.
  render(log, outputBytes, deadline) {
    const { lean } = this;
    const list = lean.call('l_Lean_MessageLog_toList', log);
    const entries = [...lean.list(list)].map((message, order) => {
      const scalars = message + 8 + 4 * MESSAGE.fields;
      return {
        message,
        order,
        severity: lean.byte(scalars + MESSAGE.severity),
        silent: lean.byte(scalars + MESSAGE.isSilent) === 1,
      };
    }).filter((entry) => !entry.silent || SEVERITY[entry.severity] === 'error');
    entries.sort((a, b) => b.severity - a.severity || a.order - b.order);
    const shown = [];
    let left = outputBytes;
    for (const entry of entries) {
      if (left <= 0 || performance.now() > deadline) break;
      const rendered = this.renderOne(entry, left);
      left -= Buffer.byteLength(rendered.text);
      shown.push([entry.order, rendered]);
    }
    lean.release(list);
    const leftOut = shown.length < entries.length
      && SEVERITY[entries[shown.length].severity] !== 'information';
    const place = ([order, { line, column }]) => [line, column, order];
    shown.sort((a, b) => {
      const left = place(a), right = place(b);
      const at = left.findIndex((value, i) => value !== right[i]);
      return at < 0 ? 0 : left[at] - right[at];
    });
    return { messages: shown.map(([, rendered]) => rendered), left_out: leftOut };
  }

  renderOne({ message, severity }, bytes) {
    const { lean } = this;
    const json = lean.call('l_Lean_Message_toJson', lean.retain(message));
    const string = lean.call('l_Lean_Json_compress', json);
    const value = JSON.parse(lean.text(string));
    lean.release(string);
    return {
      severity: SEVERITY[severity],
      line: value.pos.line,
      column: value.pos.column,
      end_line: value.endPos ? value.endPos.line : null,
      end_column: value.endPos ? value.endPos.column : null,
      kind: value.kind === '[anonymous]' ? '' : value.kind,
      text: cut(value.data, bytes),
    };
  }
}

// The longest prefix of whole characters within a number of UTF-8 bytes.
function cut(text, bytes) {
  const encoded = Buffer.from(text, 'utf8');
  if (encoded.length <= bytes) return text;
  let end = bytes;
  while (end > 0 && (encoded[end] & 0xc0) === 0x80) end--;
  return encoded.toString('utf8', 0, end);
}

module.exports = { Elaborator };
