// Checks proofs against trusted statements; reports facts, the parent decides.
'use strict';
const { isBoxed, NONE } = require('./objects.js');
const {
  Comparison, THEOREM, VALUED, findConstant, nameOf, typeOf, valueOf,
} = require('./constants.js');
const {
  findKind, isBare, ownValue, positionOf, refusalOfProof, refusalOfCommand,
} = require('./syntax.js');

// Pinned for every elaboration. Auto-bound names would turn a misspelt type into a
// variable and change what is proved; linters only cost time.
const OPTIONS = {
  autoImplicit: false, relaxedAutoImplicit: false, 'linter.all': false,
};
const HEARTBEATS = 200000; // Lean's default
const HEADERS_KEPT = 16;
const STATEMENTS_KEPT = 512;
const TRUSTED_MS = 60000; // for a header or a statement
const TRUSTED_BYTES = 4096;
const RENDER_MS = 150; // for printing messages, on top of the proof's own time
const ORIGINALLY_AXIOM = 2; // constructor of ConstantKind


// What the embedded Lean cannot do: it has no threads.
const UNAVAILABLE = new Map([['Lean.Parser.Tactic.tryTrace', 'try?']]);

class TrustedSourceError extends Error {
  constructor(reason, details) {
    super(reason);
    Object.assign(this, { inHeader: false, messages: [] }, details);
  }
}

// What Lean would say if the file were read on its own.
function missingModules(names, hasProblem) {
  const where = hasProblem
    ? "the problem's header does not load" : 'the embedded Lean does not have';
  const text = `the file imports ${names.join(', ')}, which ${where}`;
  const message = { severity: 'error', line: 1, column: 0, text };
  return { has_errors: true, messages: [message] };
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

class Checker {
  constructor(elaborator, policy) {
    this.elaborator = elaborator;
    this.lean = elaborator.lean;
    this.policy = {
      options: policy.options, // names, and prefixes that end in a dot
      raised: new Set(policy.raised),
      kinds: new Set([...policy.kinds, ...policy.proof_kinds]),
      words: new Set(policy.words),
      reserved: policy.reserved, // prefixes
      constants: new Set(policy.constants),
      configuration: new Set(policy.configuration), // kinds
      imports: policy.imports,
    };
    this.filePolicy = {
      ...this.policy,
      kinds: new Set(policy.kinds),
      options: [...policy.options, ...policy.file_options],
      commands: new Set(policy.commands),
      attributes: new Set(policy.attributes),
    };
    const { lean } = this;
    this.headers = new Kept(HEADERS_KEPT, (state) => lean.release(state));
    this.statements = new Kept(STATEMENTS_KEPT, ({ constant, name, parts = [] }) => {
      for (const object of [constant, name, ...parts]) if (object) lean.release(object);
    });
  }

  // `started` is called when the time that counts against the proof begins.
  check(request, started) {
    const { kind } = request; // statement, proof, file or run
    let prepared;
    try {
      prepared = kind === 'run' ? null : this.prepare(request);
    } catch (error) {
      if (!(error instanceof TrustedSourceError)) throw error;
      const { message, inHeader, messages } = error;
      return { statement_error: message, in_header: inHeader, messages };
    }
    if (kind === 'statement') return {};
    started();
    const begin = performance.now();
    const deadline = begin + request.wall_ms;
    const report = kind === 'proof'
      ? this.checkProof(request, prepared, deadline)
      : this.checkFile(request, prepared, deadline);
    report.seconds = (performance.now() - begin) / 1000;
    return report;
  }

  // ---- trusted source
  // The header's state (borrowed) and the statement's own constant, kept for the next
  // attempts at the same theorem. Failures are kept too.
  prepare(request) {
    const { header, statement, opening, name, heartbeats } = request;
    const trusted = this.headerState(header);
    // The proof's limit must not decide whether the statement elaborates, so it comes
    // after the header; the default leaves a header's own setting in force.
    const limited = `${header}\nset_option maxHeartbeats ${heartbeats}\n`;
    const state = heartbeats === HEARTBEATS
      ? trusted : this.headerState(limited);
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
    return { state, ...kept };
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
    const unavailable = names.filter((name) => !this.mayImport(name));
    if (unavailable.length) {
      throw new TrustedSourceError(
        'the embedded Lean has no module ' + unavailable.join(', '));
    }
    const options = elaborator.options({ ...OPTIONS, maxHeartbeats: HEARTBEATS });
    let state = elaborator.newState(elaborator.environment(names), options);
    lean.release(cursor.messages);
    for (;;) {
      const command = elaborator.parse(cursor, state);
      this.requireNoErrors(command.messages, 'the header');
      const end = elaborator.isEnd(command.syntax);
      if (!end) {
        state = this.elaborateTrusted(cursor, command, state, 'the header');
        const next = elaborator.continueState(state);
        lean.release(state);
        state = next;
      }
      this.releaseCommand(command);
      if (end) break;
    }
    lean.release(cursor.parser);
    lean.release(cursor.input);
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
    state = this.elaborateTrusted(cursor, command, state, 'the statement');
    const full = this.fullName(headerState, name);
    const known = findConstant(lean, elaborator.environmentOf(headerState), full);
    if (known) lean.release(known);
    const constant = known
      ? 0 : findConstant(lean, elaborator.environmentOf(state), full);
    const isTheorem = constant && lean.tag(constant) === THEOREM;
    const parts = isTheorem ? this.ownParts(headerState, state, constant) : [];
    this.releaseCommand(command);
    this.releaseCommand(rest);
    for (const object of [state, cursor.parser, cursor.input, cursor.messages]) {
      lean.release(object);
    }
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
      for (let i = 0; i < lean.arraySize(used); i++) {
        const name = lean.element(used, i);
        const known = findConstant(lean, before, name);
        if (known) lean.release(known);
        if (known || seen.has(lean.nameText(name))) continue;
        seen.add(lean.nameText(name));
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

  mayImport(name) {
    return this.policy.imports.some(
      (root) => name === root || name.startsWith(root + '.'));
  }

  elaborateTrusted(cursor, command, state, what) {
    const { elaborator } = this;
    const result = elaborator.withCode(
      () => elaborator.elaborate(cursor, command, state, TRUSTED_MS));
    if (result.timedOut || result.interrupted) {
      throw new TrustedSourceError(what + ' takes longer than a minute');
    }
    this.requireNoErrors(this.elaborator.messagesOf(result.state), what);
    return result.state;
  }

  requireNoErrors(log, what) {
    if (!this.elaborator.hasErrors(log)) return;
    const { messages } = this.elaborator.render(
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

  releaseCommand({ syntax, position, messages }) {
    for (const object of [syntax, position, messages]) this.lean.release(object);
  }

  // ---- untrusted proofs
  checkProof(request, prepared, deadline) {
    const { lean, elaborator } = this;
    const cursor = elaborator.open(request.source);
    lean.release(cursor.imports);
    lean.release(cursor.messages);
    const state = elaborator.continueState(prepared.state);
    const command = elaborator.parse(cursor, state);
    const broken = elaborator.hasErrors(command.messages);
    const value = ownValue(lean, command.syntax, request.opening);
    const isEmpty = value ? isBare(lean, value, request.opening) : !broken;
    const refused = broken || isEmpty ? '' : refusalOfProof(lean, value, this.policy);
    const lacking = broken || isEmpty || refused
      ? null : this.unavailable(request, command.syntax);
    let report;
    if (broken) report = this.failure(request, command.messages);
    else if (isEmpty) report = {};
    else if (refused) report = { refused };
    else if (lacking) report = lacking;
    else report = this.checkRest(request, prepared, cursor, command, state, deadline);
    report.no_proof = isEmpty;
    this.releaseCommand(command);
    for (const object of [state, cursor.parser, cursor.input]) lean.release(object);
    return report;
  }

  // A proof is one command, and nothing may follow it. A stray token is an error like
  // any other and does not hide what Lean says about the proof before it.
  checkRest(request, prepared, cursor, command, state, deadline) {
    const { lean, elaborator } = this;
    const rest = elaborator.parse(cursor, state);
    const broken = elaborator.hasErrors(rest.messages);
    const stray = broken ? this.failure(request, rest.messages) : null;
    const end = elaborator.isEnd(rest.syntax);
    this.releaseCommand(rest);
    if (!end && !broken) return { left_proof: true };
    const report = this.elaborateProof(
      request, prepared, cursor, command, lean.retain(state), deadline);
    if (stray) {
      report.has_errors = true;
      report.messages.push(...stray.messages);
    }
    return report;
  }

  // The error about a tactic that cannot run here; null when there is none.
  unavailable(request, syntax) {
    const found = findKind(this.lean, syntax, UNAVAILABLE);
    if (!found) return null;
    const word = UNAVAILABLE.get(found.kind);
    const text = `\`${word}\` needs threads, which the embedded Lean does not have`;
    const place = positionOf(this.lean, found.node, request.source);
    return { has_errors: true, messages: [{ severity: 'error', ...place, text }] };
  }

  failure(request, log) {
    const deadline = performance.now() + RENDER_MS;
    const rendered = this.elaborator.render(log, request.output_bytes, deadline);
    return { has_errors: true, ...rendered };
  }

  elaborateProof(request, prepared, cursor, command, state, deadline) {
    const { lean, elaborator } = this;
    const left = deadline - performance.now();
    const known = elaborator.environmentOf(prepared.state);
    const result = elaborator.elaborateUntrusted(known, cursor, command, state, left);
    const log = elaborator.messagesOf(result.state);
    const report = {
      has_errors: elaborator.hasErrors(log) || result.interrupted,
      timed_out: result.timedOut,
      ...elaborator.render(
        log, request.output_bytes, performance.now() + RENDER_MS),
      target: this.target(elaborator.environmentOf(result.state), prepared),
    };
    lean.release(result.state);
    return report;
  }

  // ---- untrusted files
  // All commands of a file: on the problem's header, or on the file's own imports
  // where there is no problem.
  checkFile(request, prepared, deadline) {
    const { lean, elaborator } = this;
    const cursor = elaborator.open(request.source);
    const imports = elaborator.importNames(cursor.imports);
    const log = cursor.messages;
    lean.release(cursor.imports);
    const missing = imports.filter((name) => (prepared
      ? !elaborator.hasModule(prepared.state, name) : !this.mayImport(name)));
    let report;
    if (elaborator.hasErrors(log)) report = this.failure(request, log);
    else if (missing.length) report = missingModules(missing, Boolean(prepared));
    else {
      const state = prepared ? elaborator.continueState(prepared.state)
        : elaborator.newState(elaborator.environment(imports), elaborator.options({}));
      report = this.checkCommands(request, prepared, cursor, state, deadline);
    }
    for (const object of [cursor.parser, cursor.input, log]) lean.release(object);
    return report;
  }

  // Owns `state`.
  checkCommands(request, prepared, cursor, state, deadline) {
    const { lean, elaborator } = this;
    const report = { has_errors: false, timed_out: false };
    const known = lean.retain(elaborator.environmentOf(state));
    const logs = []; // of the parser and of the elaborator, command by command
    let lacking = null;
    for (let end = false; !end && !report.timed_out && !report.refused && !lacking;) {
      const command = elaborator.parse(cursor, state);
      end = elaborator.isEnd(command.syntax);
      logs.push(lean.retain(command.messages));
      report.refused = refusalOfCommand(lean, command.syntax, this.filePolicy);
      if (!report.refused) lacking = this.unavailable(request, command.syntax);
      if (!report.refused && !lacking && !end) {
        const left = deadline - performance.now();
        const result = elaborator.elaborateUntrusted(
          known, cursor, command, state, left);
        state = result.state;
        logs.push(elaborator.takeMessages(state));
        report.has_errors ||= result.interrupted;
        report.timed_out = result.timedOut;
      }
      this.releaseCommand(command);
    }
    report.has_errors ||= logs.some((log) => elaborator.hasErrors(log));
    Object.assign(report, this.renderAll(logs, request.output_bytes));
    if (lacking) {
      report.has_errors = true;
      report.messages.push(...lacking.messages);
    }
    if (prepared && !report.refused) {
      report.target = this.target(elaborator.environmentOf(state), prepared);
    }
    for (const object of [...logs, known, state]) lean.release(object);
    return report;
  }

  renderAll(logs, outputBytes) {
    const { lean, elaborator } = this;
    const all = logs.reduce(
      (left, right) => lean.call('l_Lean_MessageLog_append', left, lean.retain(right)),
      elaborator.emptyLog());
    const deadline = performance.now() + RENDER_MS;
    const rendered = elaborator.render(all, outputBytes, deadline);
    lean.release(all);
    return rendered;
  }

  // ---- the kernel's environment
  target(environment, { state, constant: trusted, name, parts }) {
    const { lean, elaborator } = this;
    const constant = findConstant(lean, environment, name);
    if (!constant) return null;
    const header = elaborator.environmentOf(state);
    const own = new Map(parts.map((part) => [lean.nameText(nameOf(lean, part)), part]));
    const types = new Comparison(lean, own, {
      find: (other) => findConstant(lean, environment, other),
      isHeaders: (other) => {
        const known = findConstant(lean, header, other);
        if (known) lean.release(known);
        return Boolean(known);
      },
    });
    const target = {
      is_theorem: lean.tag(constant) === THEOREM,
      matches_statement: types.sameConstants(trusted, constant),
      axioms: this.axioms(environment, name),
    };
    lean.release(constant);
    return target;
  }

  // All axioms a constant rests on. The library's files hold exported data only, in
  // which its theorems look like axioms; Lean records what they were.
  axioms(environment, name) {
    const { lean } = this;
    const empty = lean.constructorObject(0, [
      lean.retain(lean.global('l_Lean_NameSet_empty')), lean.emptyArray(),
    ]);
    const result = lean.call(
      'l_Lean_CollectAxioms_collect', lean.retain(name), lean.retain(environment),
      empty);
    const found = lean.field(lean.field(result, 1), 1);
    const axioms = [];
    for (let i = 0; i < lean.arraySize(found); i++) {
      const axiom = lean.element(found, i);
      if (this.wasAxiom(environment, axiom)) axioms.push(lean.nameText(axiom));
    }
    lean.release(result);
    return axioms;
  }

  wasAxiom(environment, name) {
    const { lean } = this;
    const kind = lean.call(
      'l_Lean_getOriginalConstKind_x3f', lean.retain(environment), lean.retain(name));
    if (isBoxed(kind)) return true; // unknown: count it against the proof
    const original = lean.field(kind, 0) >>> 1;
    lean.release(kind);
    return original === ORIGINALLY_AXIOM;
  }
}

module.exports = { Checker };
