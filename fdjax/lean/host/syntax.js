// Walks a parsed proof: the second line of defence behind the textual scan.
'use strict';
const { isBoxed } = require('./objects.js');
const NODE = 1, ATOM = 2, IDENTIFIER = 3;

// Why a syntax tree may not be elaborated, '' when it may.
function refusal(lean, root, policy) {
  const kinds = new Set(); // addresses: the tree keeps them alive while we walk
  // The first child holds the modifiers of the trusted statement.
  const parts = lean.field(root, 2);
  const stack = [];
  for (let i = 1; i < lean.arraySize(parts); i++) stack.push(lean.element(parts, i));
  const options = [];
  while (stack.length) {
    const syntax = stack.pop();
    if (isBoxed(syntax) || lean.tag(syntax) !== NODE) continue;
    const kind = lean.field(syntax, 1);
    const children = lean.field(syntax, 2);
    const size = lean.arraySize(children);
    kinds.add(kind);
    let afterSetOption = false;
    for (let i = 0; i < size; i++) {
      const child = lean.element(children, i);
      if (isBoxed(child)) continue;
      const tag = lean.tag(child);
      if (tag === NODE) stack.push(child);
      else if (tag === ATOM) {
        afterSetOption = lean.text(lean.field(child, 1)) === 'set_option';
        continue;
      } else if (tag === IDENTIFIER) {
        const name = lean.nameText(lean.field(child, 2));
        if (afterSetOption) options.push(name);
        else if (name.split('.').some((part) => policy.words.has(part))) return name;
      }
      afterSetOption = false;
    }
  }
  const option = options.find((name) => !policy.options.some(
    (allowed) => name === allowed || (allowed.endsWith('.') && name.startsWith(allowed))));
  if (option !== undefined) return 'set_option ' + option;
  for (const kind of kinds) {
    const name = lean.nameText(kind);
    if (policy.kinds.has(name)) return name;
  }
  return '';
}

module.exports = { refusal };
