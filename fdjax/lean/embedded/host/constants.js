// Constants of the kernel's environment, and whether two of them say the same.
'use strict';
const { isBoxed } = require('./objects.js');

const DEFINITION = 1, THEOREM = 2, INDUCTIVE = 5, CONSTRUCTOR = 6; // of ConstantInfo
const VALUED = new Set([DEFINITION, THEOREM]);
// Constructors of Expr, and of Literal.
const BOUND = 0, CONST = 4, APPLICATION = 5, PI = 7, LET = 8, LITERAL = 9, MDATA = 10;
const PROJ = 11;
const NATURAL = 0;
// Where an expression's parts are that are expressions, by constructor: the function
// and argument of an application, type and body of a binder, and so on.
const PARTS = new Map([[5, [0, 1]], [6, [1, 2]], [7, [1, 2]], [8, [1, 2, 3]], [PROJ, [2]]]);

// Parts of a ConstantInfo (borrowed): its ConstantVal, name, universe names, type, and a
// definition's or a theorem's value.
const valOf = (lean, constant) => lean.field(lean.field(constant, 0), 0);
const nameOf = (lean, constant) => lean.field(valOf(lean, constant), 0);
const levelsOf = (lean, constant) => lean.field(valOf(lean, constant), 1);
const typeOf = (lean, constant) => lean.field(valOf(lean, constant), 2);
const valueOf = (lean, constant) => lean.field(lean.field(constant, 0), 1);

// The constant of that name among those the kernel has checked (owned), or 0.
function findConstant(lean, environment, name) {
  const kernel = lean.call(
    'lean_elab_environment_to_kernel_env', lean.retain(environment));
  const found = lean.call('lean_environment_find', kernel, lean.retain(name));
  if (isBoxed(found)) return 0;
  const constant = lean.takeField(found, 0);
  lean.release(found);
  return constant;
}

// What `look` says of the constant of that name, false when there is none.
function ofConstant(lean, environment, name, look) {
  const constant = findConstant(lean, environment, name);
  if (!constant) return false;
  const answer = look(constant);
  lean.release(constant);
  return answer;
}

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
  for (; count && lean.tag(type) === PI; count--) type = lean.field(type, 2);
  return lean.tag(type) !== PI;
}

// Whether a value is plain data, so that making it costs little and does nothing else.
// `known` is the environment before the submission: of what that declares, nothing is
// data. `policy` is the part of policy.py's that says which functions are.
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
    return lean.tag(type) === CONST && ofConstant(
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
    if (tag === LITERAL) {
      return !inGrowing || this.isSmall(lean.field(expression, 0)) ? [] : null;
    }
    if (tag === BOUND) return inGrowing ? null : [];
    if (tag === LET) {
      const all = [1, 2, 3].map((i) => [lean.field(expression, i), false]);
      return inGrowing ? null : all;
    }
    let head = expression;
    const parts = [];
    for (; lean.tag(head) === APPLICATION; head = lean.field(head, 0)) {
      parts.push(lean.field(head, 1));
    }
    if (lean.tag(head) !== CONST) return null;
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

// Compares trusted constants with those of a submission. Elaborating a statement may
// add definitions of its own: a `match` in it becomes one, and Lean uses an equal one
// again that a submission has made before, under another name. So constants that the
// header lacks are the same when their types and, of definitions, their values are.
class Comparison {
  // `own` are the trusted ones by name; `find` gives the submission's (owned), or 0.
  constructor(lean, own, { find, isHeaders }) {
    Object.assign(this, { lean, own, find, isHeaders, known: new Map() });
  }

  sameConstants(trusted, found) {
    const { lean } = this;
    if (lean.tag(trusted) !== lean.tag(found)) return false;
    const left = [...lean.list(levelsOf(lean, trusted))];
    const right = [...lean.list(levelsOf(lean, found))];
    return left.length === right.length
      && left.every((level, i) => lean.sameName(level, right[i]))
      && this.sameExpressions(typeOf(lean, trusted), typeOf(lean, found))
      && (lean.tag(trusted) !== DEFINITION
        || this.sameExpressions(valueOf(lean, trusted), valueOf(lean, found)));
  }

  isEqual(left, right) {
    return (this.lean.call('lean_expr_eqv', left, right) & 1) === 1;
  }

  sameExpressions(trusted, found) {
    const { lean } = this;
    if (!this.own.size) return this.isEqual(trusted, found);
    const stack = [[trusted, found]];
    while (stack.length) {
      const [left, right] = stack.pop().map((each) => this.withoutData(each));
      const tag = lean.tag(left);
      if (tag !== lean.tag(right)) return false;
      const parts = PARTS.get(tag);
      if (tag === CONST) {
        if (!this.sameUses(left, right)) return false;
      } else if (!parts) {
        if (!this.isEqual(left, right)) return false;
      } else {
        if (tag === PROJ && !this.sameProjections(left, right)) return false;
        for (const i of parts) stack.push([lean.field(left, i), lean.field(right, i)]);
      }
    }
    return true;
  }

  withoutData(expression) {
    const { lean } = this;
    while (lean.tag(expression) === MDATA) expression = lean.field(expression, 1);
    return expression;
  }

  // The structure is the header's, under one name, and the field the same.
  sameProjections(left, right) {
    const { lean } = this;
    return lean.sameName(lean.field(left, 0), lean.field(right, 0))
      && !this.own.has(lean.nameText(lean.field(left, 0)))
      && lean.field(left, 1) === lean.field(right, 1);
  }

  // Constants with universe levels.
  sameUses(left, right) {
    const { lean } = this;
    const names = [lean.field(left, 0), lean.field(right, 0)];
    const own = this.own.get(lean.nameText(names[0]));
    if (!own) return this.isEqual(left, right);
    const renamed = lean.call('l_Lean_mkConst', ...[names[0], lean.field(right, 1)].map(
      (each) => lean.retain(each)));
    const sameLevels = this.isEqual(left, renamed);
    lean.release(renamed);
    return sameLevels && this.sameOwn(own, names[1]);
  }

  sameOwn(own, name) {
    const { lean } = this;
    const key = JSON.stringify([nameOf(lean, own), name].map((n) => lean.nameText(n)));
    if (!this.known.has(key)) {
      const found = this.isHeaders(name) ? 0 : this.find(name);
      const same = Boolean(found) && VALUED.has(lean.tag(own))
        && this.sameConstants(own, found);
      if (found) lean.release(found);
      this.known.set(key, same);
    }
    return this.known.get(key);
  }
}

module.exports = {
  Comparison, DEFINITION, PlainData, THEOREM, VALUED, findConstant, nameOf, ofConstant,
  typeOf, valueOf,
};
