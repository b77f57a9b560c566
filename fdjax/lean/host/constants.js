// Constants of the kernel's environment, and whether two of them say the same.
'use strict';
const DEFINITION = 1, THEOREM = 2; // constructors of ConstantInfo
const VALUED = new Set([DEFINITION, THEOREM]);
const CONST = 4, MDATA = 10, PROJ = 11; // constructors of Expr
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

module.exports = { Comparison, THEOREM, VALUED, nameOf, typeOf, valueOf };
