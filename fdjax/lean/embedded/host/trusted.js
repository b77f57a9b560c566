// Headers and statements: trusted to mean what they say, and checked for whether a proof
// can follow.
'use strict';
const {
  THEOREM, VALUED, findConstant, hasConstant, typeOf, valueOf,
} = require('./constants.js');
const { isBoxed, NONE } = require('./objects.js');
const { isBare, ownValue } = require('./syntax.js');

// Pinned for every elaboration. Auto-bound names would turn a misspelt type into a
// variable and change what is proved; linters only cost time.
const OPTIONS = {
  autoImplicit: false, relaxedAutoImplicit: false, 'linter.all': false,
};
const HEADERS_KEPT = 16;
const STATEMENTS_KEPT = 512;
const TRUSTED_MS = 60000; // for a header or a statement
const TRUSTED_BYTES = 4096;

class TrustedSourceError extends Error {
  constructor(reason, details) {
    super(reason);
    Object.assign(this, { inHeader: false, messages: [] }, details);
  }
}

// A small least-recently-used map that releases what it drops.
class Kept {
  constructor(size, drop) {
    Object.assign(this, { size, drop, entries: new Map() });
  }

  get(key, make) {
    let value = this.entries.get(key);
    if (value === undefined) value = make();
    else this.entries.delete(key);
    this.entries.set(key, value);
    if (this.entries.size > this.size) {
      const [oldest, dropped] = this.entries.entries().next().value;
      this.entries.delete(oldest);
      this.drop(dropped);
    }
    return value;
  }
}

// Whether a module belongs to one of the library's roots.
const mayImport = (roots, name) => roots.some(
  (root) => name === root || name.startsWith(root + '.'));

class TrustedSources {
  // `imports` are the library's roots that a header may import; `heartbeats` is Lean's
  // default.
  constructor(elaborator, { imports, heartbeats }) {
    const { lean } = elaborator;
    Object.assign(this, { elaborator, lean, imports, heartbeats });
    this.headers = new Kept(HEADERS_KEPT, (state) => lean.release(state));
    this.statements = new Kept(STATEMENTS_KEPT, ({ constant, name, parts = [] }) => {
      lean.releaseAll([constant, name, ...parts].filter(Boolean));
    });
  }

  // The header's state and environment (borrowed) and what the statement declares, kept
  // for the next attempts at the same theorem. Failures are kept too.
  prepare(request) {
    const { header, statement, opening, name, heartbeats } = request;
    const trusted = this.headerState(header);
    // The proof's limit must not decide whether the statement elaborates, so it comes
    // after the header; the default leaves a header's own setting in force.
    const limited = `${header}\nset_option maxHeartbeats ${heartbeats}\n`;
    const state = heartbeats === this.heartbeats ? trusted : this.headerState(limited);
    const key = JSON.stringify([header, statement, name]);
    const kept = this.statements.get(key, () => {
      try {
        return this.statement(trusted, statement, opening, name);
      } catch (error) {
        if (error instanceof TrustedSourceError) return { error };
        throw error;
      }
    });
    if (kept.error) throw kept.error;
    return { state, header: this.elaborator.environmentOf(state), ...kept };
  }

  headerState(source) {
    try {
      return this.headers.get(source, () => this.header(source));
    } catch (error) {
      if (error instanceof TrustedSourceError) error.inHeader = true;
      throw error;
    }
  }

  header(source) {
    const { lean, elaborator } = this;
    const cursor = elaborator.open(source);
    const names = elaborator.importNames(cursor.imports);
    lean.release(cursor.imports);
    this.requireNoErrors(cursor.messages, 'the header');
    if (!names.includes('Init')) {
      throw new TrustedSourceError('the header does without Init: leave `prelude` out');
    }
    const unavailable = names.filter((name) => !mayImport(this.imports, name));
    if (unavailable.length) {
      throw new TrustedSourceError(
        'the embedded Lean has no module ' + unavailable.join(', '));
    }
    const options = elaborator.options({ ...OPTIONS, maxHeartbeats: this.heartbeats });
    let state = elaborator.newState(elaborator.environment(names), options);
    lean.release(cursor.messages);
    for (;;) {
      const command = elaborator.parse(cursor, state);
      this.requireNoErrors(command.messages, 'the header');
      const end = elaborator.isEnd(command.syntax);
      if (!end) {
        state = this.elaborate(cursor, command, state, 'the header');
        const next = elaborator.continueState(state);
        lean.release(state);
        state = next;
      }
      elaborator.releaseCommand(command);
      if (end) break;
    }
    lean.releaseAll([cursor.parser, cursor.input]);
    return state;
  }

  // `source` ends in our own `:= sorry`, which begins at byte `opening`.
  statement(headerState, source, opening, name) {
    const { lean, elaborator } = this;
    const cursor = elaborator.open(source);
    lean.release(cursor.imports);
    this.requireNoErrors(cursor.messages, 'the statement');
    if (!cursor.isHeaderless) {
      throw new TrustedSourceError(
        'the statement begins with `import`, `module` or `prelude`, which belong to the '
        + 'header');
    }
    let state = elaborator.continueState(headerState);
    const command = elaborator.parse(cursor, state);
    this.requireNoErrors(command.messages, 'the statement');
    const rest = elaborator.parse(cursor, state);
    if (!elaborator.isEnd(rest.syntax)) {
      throw new TrustedSourceError('the statement holds more than one command');
    }
    const value = ownValue(lean, command.syntax, opening);
    if (!value || !isBare(lean, value, opening)) {
      throw new TrustedSourceError(
        'the statement carries a proof, or declares no theorem; it must end before `:=`');
    }
    state = this.elaborate(cursor, command, state, 'the statement');
    const full = this.fullName(headerState, name);
    const isKnown = hasConstant(lean, elaborator.environmentOf(headerState), full);
    const constant = isKnown
      ? 0 : findConstant(lean, elaborator.environmentOf(state), full);
    const isTheorem = constant && lean.tag(constant) === THEOREM;
    const parts = isTheorem ? this.ownParts(headerState, state, constant) : [];
    elaborator.releaseCommand(command);
    elaborator.releaseCommand(rest);
    lean.releaseAll([state, cursor.parser, cursor.input, cursor.messages]);
    if (!isTheorem) {
      throw new TrustedSourceError(
        `the statement declares no theorem ${name}; spell the name as it does, and leave `
        + '`private` out');
    }
    return { constant, name: full, parts };
  }

  // The constants (owned) that elaborating a statement adds besides the theorem: a
  // `match` in it becomes a definition. A submission could define them first.
  ownParts(headerState, state, theorem) {
    const { lean, elaborator } = this;
    const before = elaborator.environmentOf(headerState);
    const after = elaborator.environmentOf(state);
    const parts = [];
    const seen = new Set();
    const visit = (expression) => {
      const used = lean.call('l_Lean_Expr_getUsedConstants', lean.retain(expression));
      for (const name of lean.elements(used)) {
        const text = lean.nameText(name);
        if (seen.has(text) || hasConstant(lean, before, name)) continue;
        seen.add(text);
        const part = findConstant(lean, after, name);
        parts.push(part);
        visit(typeOf(lean, part));
        if (VALUED.has(lean.tag(part))) visit(valueOf(lean, part));
      }
      lean.release(used);
    };
    visit(typeOf(lean, theorem));
    return parts;
  }

  elaborate(cursor, command, state, what) {
    const { elaborator } = this;
    const result = elaborator.compiler.withAll(
      () => elaborator.elaborate(cursor, command, state, TRUSTED_MS));
    if (result.timedOut || result.interrupted) {
      throw new TrustedSourceError(what + ' takes longer than a minute');
    }
    this.requireNoErrors(elaborator.messagesOf(result.state), what);
    return result.state;
  }

  requireNoErrors(log, what) {
    const { elaborator } = this;
    if (!elaborator.hasErrors(log)) return;
    const { messages } = elaborator.render(
      log, TRUSTED_BYTES, performance.now() + TRUSTED_MS);
    const error = messages.find((message) => message.severity === 'error');
    const text = error ? error.text : 'unknown';
    throw new TrustedSourceError(`${what} does not elaborate: ${text}`, { messages });
  }

  // What is declared under this spelling in the namespace that the header leaves open.
  // A name without its «» is one part where Lean reads it as none.
  fullName(headerState, spelling) {
    const { lean, elaborator } = this;
    const relative = spelling.replace(/^_root_\./, '');
    let name = lean.call('l_String_toName', lean.string(relative));
    if (isBoxed(name)) name = lean.call('lean_name_mk_string', NONE, lean.string(relative));
    if (relative !== spelling) return name;
    const namespace = lean.retain(elaborator.namespaceOf(headerState));
    return lean.call('l_Lean_Name_append', namespace, name);
  }
}

module.exports = { TrustedSourceError, TrustedSources, mayImport };
