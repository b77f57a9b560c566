// Constants of the kernel's environment, and whether two of them say the same.
'use strict';
const { isBoxed } = require('./objects.js');

// Constructors of ConstantInfo, and of Expr.
const DEFINITION = 1, THEOREM = 2, INDUCTIVE = 5, CONSTRUCTOR = 6;
const VALUED = new Set([DEFINITION, THEOREM]);
const EXPRESSION = {
  bound: 0, constant: 4, application: 5, lambda: 6, pi: 7, let: 8, literal: 9, data: 10,
  projection: 11,
};
// Where an expression's parts are that are expressions, by constructor: the function
// and argument of an application, type and body of a binder, and so on.
const PARTS = new Map([
  [EXPRESSION.application, [0, 1]],
  [EXPRESSION.lambda, [1, 2]],
  [EXPRESSION.pi, [1, 2]],
  [EXPRESSION.let, [1, 2, 3]],
  [EXPRESSION.projection, [2]],
]);

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

const hasConstant = (lean, environment, name) => (
  ofConstant(lean, environment, name, () => true));

// What `look` says of the constant of that name, false when there is none.
function ofConstant(lean, environment, name, look) {
  const constant = findConstant(lean, environment, name);
  if (!constant) return false;
  const answer = look(constant);
  lean.release(constant);
  return answer;
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
      if (tag === EXPRESSION.constant) {
        if (!this.sameUses(left, right)) return false;
      } else if (!parts) {
        if (!this.isEqual(left, right)) return false;
      } else {
        const isSame = tag !== EXPRESSION.projection || this.sameProjections(left, right);
        if (!isSame) return false;
        for (const i of parts) stack.push([lean.field(left, i), lean.field(right, i)]);
      }
    }
    return true;
  }

  withoutData(expression) {
    const { lean } = this;
    while (lean.tag(expression) === EXPRESSION.data) expression = lean.field(expression, 1);
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
  CONSTRUCTOR, Comparison, DEFINITION, EXPRESSION, INDUCTIVE, THEOREM, VALUED, findConstant,
  hasConstant, nameOf, ofConstant, typeOf, valueOf,
};
