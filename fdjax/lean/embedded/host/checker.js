// Checks proofs against trusted statements; reports facts, the parent decides.
'use strict';
const { Rules } = require('./rules.js');
const { findKind, isBare, ownValue, positionOf } = require('./syntax.js');
const { targetOf } = require('./target.js');
const { TrustedSourceError, TrustedSources, mayImport } = require('./trusted.js');

const RENDER_MS = 150; // for printing messages, on top of the proof's own time

// What the embedded Lean cannot do: it has no threads.
const UNAVAILABLE = new Map([['Lean.Parser.Tactic.tryTrace', 'try?']]);

// What Lean would say if the file were read on its own.
function missingModules(names, hasProblem) {
  const where = hasProblem
    ? "the problem's header does not load" : 'the embedded Lean does not have';
  const text = `the file imports ${names.join(', ')}, which ${where}`;
  const message = { severity: 'error', line: 1, column: 0, text };
  return { has_errors: true, messages: [message] };
}

// Adds what another report says, if there is one, behind the messages of a report.
function addErrors(report, other) {
  if (!other) return;
  report.has_errors = true;
  report.messages.push(...other.messages);
}

class Checker {
  // `heartbeats` is Lean's default.
  constructor(elaborator, policy, heartbeats) {
    const { imports } = policy;
    const { lean } = elaborator;
    Object.assign(this, { elaborator, lean, imports });
    this.trusted = new TrustedSources(elaborator, { imports, heartbeats });
    this.proofRules = new Rules(lean, policy, { isFile: false });
    this.fileRules = new Rules(lean, policy, { isFile: true });
  }

  // `started` is called when the time that counts against the proof begins.
  check(request, started) {
    const { kind } = request; // statement, proof, file or run
    let prepared;
    try {
      prepared = kind === 'run' ? null : this.trusted.prepare(request);
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

  // ---- untrusted proofs
  checkProof(request, prepared, deadline) {
    const { lean, elaborator } = this;
    const cursor = elaborator.open(request.source);
    lean.releaseAll([cursor.imports, cursor.messages]);
    const state = elaborator.continueState(prepared.state);
    const command = elaborator.parse(cursor, state);
    const broken = elaborator.hasErrors(command.messages);
    const value = ownValue(lean, command.syntax, request.opening);
    const isEmpty = value ? isBare(lean, value, request.opening) : !broken;
    let report = {};
    if (broken) report = this.failure(request, command.messages);
    else if (!isEmpty) {
      const refused = this.proofRules.refuseProof(value);
      report = refused ? { refused } : this.unavailable(request, command.syntax)
        || this.checkRest(request, prepared, cursor, command, state, deadline);
    }
    report.no_proof = isEmpty;
    elaborator.releaseCommand(command);
    lean.releaseAll([state, cursor.parser, cursor.input]);
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
    elaborator.releaseCommand(rest);
    if (!end && !broken) return { left_proof: true };
    const report = this.elaborateProof(
      request, prepared, cursor, command, lean.retain(state), deadline);
    addErrors(report, stray);
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
    return { has_errors: true, ...this.render(request, log) };
  }

  render(request, log) {
    return this.elaborator.render(
      log, request.output_bytes, performance.now() + RENDER_MS);
  }

  // Elaborates a command of a submission; `known` is the environment before all of it.
  elaborate(known, cursor, command, state, deadline) {
    const { elaborator } = this;
    const left = deadline - performance.now();
    return elaborator.compiler.withData(
      known, () => elaborator.elaborate(cursor, command, state, left));
  }

  elaborateProof(request, prepared, cursor, command, state, deadline) {
    const { lean, elaborator } = this;
    const result = this.elaborate(prepared.header, cursor, command, state, deadline);
    const log = elaborator.messagesOf(result.state);
    const report = {
      has_errors: elaborator.hasErrors(log) || result.interrupted,
      timed_out: result.timedOut,
      ...this.render(request, log),
      target: targetOf(lean, elaborator.environmentOf(result.state), prepared),
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
      ? !elaborator.hasModule(prepared.state, name) : !mayImport(this.imports, name)));
    let report;
    if (elaborator.hasErrors(log)) report = this.failure(request, log);
    else if (missing.length) report = missingModules(missing, Boolean(prepared));
    else {
      const state = prepared ? elaborator.continueState(prepared.state)
        : elaborator.newState(elaborator.environment(imports), elaborator.options({}));
      report = this.checkCommands(request, prepared, cursor, state, deadline);
    }
    lean.releaseAll([cursor.parser, cursor.input, log]);
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
      report.refused = this.fileRules.refuseCommand(command.syntax);
      if (!report.refused) lacking = this.unavailable(request, command.syntax);
      if (!report.refused && !lacking && !end) {
        const result = this.elaborate(known, cursor, command, state, deadline);
        state = result.state;
        logs.push(elaborator.takeMessages(state));
        report.has_errors ||= result.interrupted;
        report.timed_out = result.timedOut;
      }
      elaborator.releaseCommand(command);
    }
    report.has_errors ||= logs.some((each) => elaborator.hasErrors(each));
    const log = elaborator.joinedLogs(logs);
    Object.assign(report, this.render(request, log));
    addErrors(report, lacking);
    if (prepared && !report.refused) {
      report.target = targetOf(lean, elaborator.environmentOf(state), prepared);
    }
    lean.releaseAll([...logs, log, known, state]);
    return report;
  }
}

module.exports = { Checker };
