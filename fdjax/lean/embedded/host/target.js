// Facts about the constant with the problem's name, read from the kernel.
'use strict';
const {
  Comparison, THEOREM, findConstant, hasConstant, nameOf,
} = require('./constants.js');
const { isBoxed } = require('./objects.js');

const ORIGINALLY_AXIOM = 2; // constructor of ConstantKind

// Of a submission's environment; null where there is no such constant. `header` is the
// environment before the statement, and the rest is what the statement declares.
function targetOf(lean, environment, { header, constant: trusted, name, parts }) {
  const constant = findConstant(lean, environment, name);
  if (!constant) return null;
  const own = new Map(parts.map((part) => [lean.nameText(nameOf(lean, part)), part]));
  const types = new Comparison(lean, own, {
    find: (other) => findConstant(lean, environment, other),
    isHeaders: (other) => hasConstant(lean, header, other),
  });
  const target = {
    is_theorem: lean.tag(constant) === THEOREM,
    matches_statement: types.sameConstants(trusted, constant),
    axioms: axiomsOf(lean, environment, name),
  };
  lean.release(constant);
  return target;
}

// All axioms a constant rests on. The library's files hold exported data only, in
// which its theorems look like axioms; Lean records what they were.
function axiomsOf(lean, environment, name) {
  const empty = lean.constructorObject(0, [
    lean.retain(lean.global('l_Lean_NameSet_empty')), lean.emptyArray(),
  ]);
  const result = lean.call(
    'l_Lean_CollectAxioms_collect', lean.retain(name), lean.retain(environment), empty);
  const axioms = lean.elements(lean.field(lean.field(result, 1), 1))
    .filter((axiom) => wasAxiom(lean, environment, axiom))
    .map((axiom) => lean.nameText(axiom));
  lean.release(result);
  return axioms;
}

function wasAxiom(lean, environment, name) {
  const kind = lean.call(
    'l_Lean_getOriginalConstKind_x3f', lean.retain(environment), lean.retain(name));
  if (isBoxed(kind)) return true; // unknown: count it against the proof
  const original = lean.field(kind, 0) >>> 1;
  lean.release(kind);
  return original === ORIGINALLY_AXIOM;
}

module.exports = { targetOf };
