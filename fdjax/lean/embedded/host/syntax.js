// Reads what the parser made of a text: its tokens, and where a statement ends and a
// submission begins.
'use strict';
const { isBoxed } = require('./objects.js');

const NODE = 1, ATOM = 2; // constructors of Syntax
const ORIGINAL = 0, SYNTHETIC = 1; // constructors of SourceInfo

const isNode = (lean, syntax) => !isBoxed(syntax) && lean.tag(syntax) === NODE;

const kindOf = (lean, node) => lean.nameText(lean.field(node, 1));

// Borrowed, as all that comes out of a tree here.
const childrenOf = (lean, node) => lean.elements(lean.field(node, 2));

const isAtom = (lean, syntax) => !isBoxed(syntax) && lean.tag(syntax) === ATOM;

// Of an atom.
const wordOf = (lean, atom) => lean.text(lean.field(atom, 1));

// Of an identifier.
const identifierOf = (lean, identifier) => lean.nameText(lean.field(identifier, 2));

// Where a token begins, in bytes; -1 where that is not known.
function placeOf(lean, token) {
  const info = lean.field(token, 0);
  if (isBoxed(info)) return -1;
  const places = { [ORIGINAL]: 1, [SYNTHETIC]: 0 };
  return lean.field(info, places[lean.tag(info)]) >>> 1;
}

// The last token of some trees, 0 when they have none.
function lastToken(lean, trees) {
  const stack = [...trees];
  while (stack.length) {
    const syntax = stack.pop();
    if (isNode(lean, syntax)) stack.push(...childrenOf(lean, syntax));
    else if (!isBoxed(syntax)) return syntax; // the parser found one
  }
  return 0;
}

// Nodes that hold a whole command, or parts of one in a row.
const GROUPS = new Set(['Lean.Parser.Command.in', 'group', 'null']);
const DECLARED_VALUE = 'Lean.Parser.Command.declValSimple';

// The trees behind our own `:=`, which begins at byte `opening` of the text; null where
// the parser does not take it for that of the declaration: then what is before it is more
// or less than a statement. A declaration by a macro of the header has its `:=` at the
// top.
function ownValue(lean, command, opening) {
  let depth = 0; // of nodes that are no groups
  for (let node = command; node && isNode(lean, node);) {
    const kind = kindOf(lean, node);
    if (!GROUPS.has(kind)) depth++;
    const children = childrenOf(lean, node);
    const own = children.findIndex((child) => isAtom(lean, child)
      && wordOf(lean, child) === ':=' && placeOf(lean, child) === opening);
    if (own >= 0) {
      return kind === DECLARED_VALUE || depth <= 1 ? children.slice(own + 1) : null;
    }
    node = children.findLast((child) => lastToken(lean, [child]));
  }
  return null;
}

// Whether a value is no more than the one token behind our own `:=`.
function isBare(lean, value, opening) {
  const last = lastToken(lean, value);
  return !last || placeOf(lean, last) <= opening + ':= '.length;
}

// The text of the first token below a tree.
function firstToken(lean, syntax) {
  while (isNode(lean, syntax)) {
    const children = childrenOf(lean, syntax);
    if (!children.length) return '';
    [syntax] = children;
  }
  if (isBoxed(syntax)) return ''; // the parser found none
  return isAtom(lean, syntax) ? wordOf(lean, syntax) : identifierOf(lean, syntax);
}

// Gives the kinds of nodes. They are few and the parser's own, so they are looked up by
// address within one walk, while the tree keeps them alive.
function kindReader(lean) {
  const names = new Map();
  return (node) => {
    const kind = lean.field(node, 1);
    if (!names.has(kind)) names.set(kind, lean.nameText(kind));
    return names.get(kind);
  };
}

// The first node whose kind is a key of `kinds`, null when there is none.
function findKind(lean, root, kinds) {
  const readKind = kindReader(lean);
  const stack = [root];
  while (stack.length) {
    const node = stack.pop();
    if (!isNode(lean, node)) continue;
    const kind = readKind(node);
    if (kinds.has(kind)) return { node, kind };
    stack.push(...childrenOf(lean, node).reverse());
  }
  return null;
}

// Where a node that begins with a word of the source begins.
function positionOf(lean, node, source) {
  const bytes = placeOf(lean, childrenOf(lean, node)[0]);
  const read = Buffer.from(source.replaceAll('\r\n', '\n'), 'utf8'); // as Lean does
  const before = read.subarray(0, bytes).toString('utf8');
  const lines = before.split('\n');
  return { line: lines.length, column: [...lines[lines.length - 1]].length };
}

module.exports = {
  childrenOf, findKind, firstToken, identifierOf, isAtom, isBare, isNode, kindOf,
  kindReader, lastToken, ownValue, positionOf, wordOf,
};
