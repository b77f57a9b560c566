// What of a submission Lean compiles, and thereby may run: plain data, nothing else.
//
// Tactics compile and run their configuration (`simp +arith`) and the tactic blocks of
// automatic parameters, both under names that Lean makes up. Where these are plain data
// they are compiled, and nothing else of a submission is: what has no code cannot be
// run, whatever asks for it.
//
// The package lacks the intermediate code of some library functions, and a definition
// that cannot be compiled is still a definition: such failures are dropped. The
// kernel never sees compiled code.
'use strict';
const {
  CONSTRUCTOR, DEFINITION, EXPRESSION, INDUCTIVE, ofConstant, typeOf, valueOf,
} = require('./constants.js');
const { box, isBoxed } = require('./objects.js');

const NATURAL = 0; // constructor of Literal
const CORE_STATE = { env: 0 }; // field number

// Whether a constant takes a part of a structure, not of an instance of a class.
function isProjection(lean, environment, name) {
  const found = lean.call(
    'l_Lean_Environment_getProjectionFnInfo_x3f', lean.retain(environment),
    lean.retain(name));
  if (isBoxed(found)) return false;
  const info = lean.field(found, 0);
  const fromClass = lean.byte(info + 8 + 4 * 3) !== 0;
  lean.release(found);
  return !fromClass;
}

// Whether a function with this number of arguments has all.
function isComplete(lean, constant, count) {
  let type = typeOf(lean, constant);
  for (; count && lean.tag(type) === EXPRESSION.pi; count--) type = lean.field(type, 2);
  return lean.tag(type) !== EXPRESSION.pi;
}

// Whether a value is plain data, so that making it costs little and does nothing else.
// `known` is the environment before the submission: of what that declares, nothing is
// data. `policy` says which functions are.
class PlainData {
  constructor(lean, known, policy) {
    Object.assign(this, { lean, known, policy });
  }

  // Whether a known constant is data, as applied to some arguments: a type, a
  // constructor, one of the functions; and outside the arguments of one whose result
  // grows, the projection of a structure or a value whose type is an inductive type by
  // itself, such as Nat.
  isData(name, constant, count, inGrowing) {
    const { lean, known, policy } = this;
    const text = lean.nameText(name);
    if (policy.unlike.has(text.split('.')[0])) return false;
    if (policy.growing.has(text)) return !inGrowing && isComplete(lean, constant, count);
    if (policy.functions.has(text)) return true;
    const tag = lean.tag(constant);
    if (tag === INDUCTIVE || tag === CONSTRUCTOR) return true;
    if (inGrowing) return false;
    if (isProjection(lean, known, name)) return true;
    const type = typeOf(lean, constant);
    return lean.tag(type) === EXPRESSION.constant && ofConstant(
      lean, known, lean.field(type, 0), (of) => lean.tag(of) === INDUCTIVE);
  }

  isSmall(literal) {
    const { lean, policy } = this;
    const value = lean.field(literal, 0);
    return lean.tag(literal) !== NATURAL
      || (isBoxed(value) && value >>> 1 <= policy.largest);
  }

  // The parts of an expression; null when it is no data.
  parts(expression, inGrowing) {
    const { lean, policy } = this;
    const tag = lean.tag(expression);
    if (tag === EXPRESSION.literal) {
      return !inGrowing || this.isSmall(lean.field(expression, 0)) ? [] : null;
    }
    if (tag === EXPRESSION.bound) return inGrowing ? null : [];
    if (tag === EXPRESSION.let) {
      const all = [1, 2, 3].map((i) => [lean.field(expression, i), false]);
      return inGrowing ? null : all;
    }
    let head = expression;
    const parts = [];
    for (; lean.tag(head) === EXPRESSION.application; head = lean.field(head, 0)) {
      parts.push(lean.field(head, 1));
    }
    if (lean.tag(head) !== EXPRESSION.constant) return null;
    const name = lean.field(head, 0);
    const grows = policy.growing.has(lean.nameText(name));
    const isData = ofConstant(lean, this.known, name, (constant) => (
      this.isData(name, constant, parts.length, inGrowing)));
    return isData ? parts.map((part) => [part, inGrowing || grows]) : null;
  }

  has(expression) {
    const stack = [[expression, false]];
    for (let nodes = this.policy.nodes; stack.length; nodes--) {
      const parts = nodes > 0 ? this.parts(...stack.pop()) : null;
      if (!parts) return false;
      stack.push(...parts);
    }
    return true;
  }
}

class Compiler {
  // `policy` is that of policy.py; without one, nothing counts as data.
  constructor(lean, policy = {}) {
    const { functions, growing, unlike, largest = 0, nodes = 0 } = policy;
    this.lean = lean;
    this.policy = {
      functions: new Set(functions),
      growing: new Set(growing),
      unlike: new Set(unlike),
      largest,
      nodes,
    };
    this.known = 0; // the environment before the submission, while one is elaborated
    this.compilesAll = false;
    this.replaceLeans();
  }

  // Puts ours in front of what Lean compiles declarations with.
  replaceLeans() {
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
    const data = new PlainData(lean, this.known, this.policy);
    const core = lean.call('lean_st_ref_get', coreState);
    const environment = lean.field(core, CORE_STATE.env);
    const may = lean.elements(names).every((name) => this.isLeansOwn(name)
      && ofConstant(lean, environment, name, (constant) => (
        lean.tag(constant) === DEFINITION && data.has(valueOf(lean, constant)))));
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
  withAll(action) {
    this.compilesAll = true;
    try {
      return action();
    } finally {
      this.compilesAll = false;
    }
  }

  // What `action` elaborates is a submission's. `known` is the environment (borrowed)
  // before all of it.
  withData(known, action) {
    this.known = known;
    try {
      return action();
    } finally {
      this.known = 0;
    }
  }
}

module.exports = { Compiler };
