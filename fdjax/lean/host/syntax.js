// Walks a parsed proof: the second line of defence behind the textual scan.
'use strict';
const { isBoxed } = require('./objects.js');
const NODE = 1, ATOM = 2, IDENTIFIER = 3;

// Names of node kinds; kinds are few and the parser's own, so they are looked up by
// address within one walk, while the tree keeps them alive.
class KindNames {
  constructor(lean) {
    Object.assign(this, { lean, names: new Map() });
  }

  get(kind) {
    let name = this.names.get(kind);
    if (name === undefined) {
      name = this.lean.nameText(kind);
      this.names.set(kind, name);
    }
    return name;
  }
}

function allowedOption(policy, name) {
  return policy.options.some((allowed) => name === allowed
    || (allowed.endsWith('.') && name.startsWith(allowed)));
}

// Why an identifier may not occur, '' when it may.
function refuseIdentifier(policy, name, isOption, inConfiguration) {
  if (isOption) return allowedOption(policy, name) ? '' : 'set_option ' + name;
  const parts = name.split('.');
  if (parts.some((part) => policy.words.has(part))) return name;
  return inConfiguration && parts.includes('sorryAx') ? name : '';
}

// A tactic's configuration is compiled and run. Lean refuses one with a visible
// `sorry`; a false proof inside `by` could hide one, and false bounds would let
// compiled code reach any memory.
function refuseKind(policy, name, inConfiguration) {
  if (policy.kinds.has(name)) return name;
  return inConfiguration && name === 'Lean.Parser.Term.byTactic'
    ? '`by` in a configuration' : '';
}

// Why a syntax tree may not be elaborated, '' when it may.
function refusal(lean, root, policy) {
  const kinds = new KindNames(lean);
  // The first child holds the modifiers of the trusted statement.
  const parts = lean.field(root, 2);
  const stack = [];
  for (let i = 1; i < lean.arraySize(parts); i++) {
    stack.push([lean.element(parts, i), false]);
  }
  while (stack.length) {
    const [syntax, outside] = stack.pop();
    if (isBoxed(syntax) || lean.tag(syntax) !== NODE) continue;
    const kind = kinds.get(lean.field(syntax, 1));
    const inConfiguration = outside || /config/i.test(kind);
    const refused = refuseKind(policy, kind, inConfiguration);
    if (refused) return refused;
    const children = lean.field(syntax, 2);
    let isOption = false;
    for (let i = 0; i < lean.arraySize(children); i++) {
      const child = lean.element(children, i);
      if (isBoxed(child)) continue;
      const tag = lean.tag(child);
      if (tag === ATOM) {
        isOption = lean.text(lean.field(child, 1)) === 'set_option';
        continue;
      }
      if (tag === IDENTIFIER) {
        const name = lean.nameText(lean.field(child, 2));
        const word = refuseIdentifier(policy, name, isOption, inConfiguration);
        if (word) return word;
      } else {
        stack.push([child, inConfiguration]);
      }
      isOption = false;
    }
  }
  return '';
}

module.exports = { refusal };
