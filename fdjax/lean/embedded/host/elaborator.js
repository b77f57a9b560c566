// Imports, parsing and elaboration of single commands.
'use strict';
const { Compiler } = require('./compiler.js');
const { Deadline } = require('./deadline.js');
const { box, isBoxed, NONE } = require('./objects.js');
const { isNode, kindOf, lastToken } = require('./syntax.js');

// Field numbers of Lean structures.
const STATE = { env: 0, messages: 1, scopes: 2 };
const SCOPE = { options: 1, namespace: 2, openDecls: 3 };
const MESSAGE = { fields: 5, severity: 1, isSilent: 2 };
const SEVERITY = ['information', 'warning', 'error'];
const PRIVATE_LEVEL = 2; // of what a module shows
const END = 'Lean.Parser.Command.eoi';

class Elaborator {
  constructor(lean, graceMs, policy) {
    this.lean = lean;
    this.compiler = new Compiler(lean, policy);
    this.deadline = new Deadline(lean.internals.memory, graceMs);
    this.environments = new Map();
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
    return [...new Set(lean.elements(imports).map(
      (each) => lean.nameText(lean.field(each, 0))))];
  }

  // The environment of a set of modules (borrowed); made once and kept.
  environment(names) {
    const key = names.filter((name) => name !== 'Init').sort().join('\n') || 'Init';
    if (!this.environments.has(key)) {
      const { lean } = this;
      const lines = key.split('\n').map((name) => 'import ' + name + '\n').join('');
      const { input, parser, messages, imports } = this.open(lines);
      const result = lean.call(
        'l_Lean_importModules', imports, lean.retain(lean.global('l_Lean_Options_empty')),
        0, lean.emptyArray(), 1, 1, PRIVATE_LEVEL, lean.global('l_Lean_NameSet_empty'));
      lean.releaseAll([input, parser, messages]);
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

  releaseCommand({ syntax, position, messages }) {
    this.lean.releaseAll([syntax, position, messages]);
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
    this.deadline.arm(token, wallMs);
    let result;
    try {
      result = lean.call(
        'l_Lean_Elab_Command_elabCommandTopLevel', lean.retain(command.syntax), context,
        lean.retain(reference));
    } finally {
      this.deadline.disarm();
    }
    const interrupted = lean.tag(result) !== 0;
    lean.release(result);
    const next = lean.call('lean_st_ref_get', reference);
    lean.release(reference);
    lean.release(token);
    return { state: next, timedOut: this.deadline.fired, interrupted };
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

  joinedLogs(logs) {
    const { lean } = this;
    return logs.reduce(
      (left, right) => lean.call('l_Lean_MessageLog_append', left, lean.retain(right)),
      this.emptyLog());
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
    let bytes = outputBytes;
    for (const entry of entries) {
      if (bytes <= 0 || performance.now() > deadline) break;
      const rendered = this.renderOne(entry, bytes);
      bytes -= Buffer.byteLength(rendered.text);
      shown.push([entry.order, rendered]);
    }
    lean.release(list);
    const leftOut = shown.length < entries.length
      && SEVERITY[entries[shown.length].severity] !== 'information';
    shown.sort(([m, left], [n, right]) => (
      left.line - right.line || left.column - right.column || m - n));
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
