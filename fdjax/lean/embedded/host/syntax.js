// Walks what the parser made of a text: where a statement ends and a submission begins,
// and what that holds, the second line of defence behind the textual scan.
'use strict';
const { isBoxed } = require('./objects.js');
const NODE = 1, ATOM = 2, IDENTIFIER = 3;
const ORIGINAL = 0, SYNTHETIC = 1; // constructors of SourceInfo

const isNode = (lean, syntax) => !isBoxed(syntax) && lean.tag(syntax) === NODE;

const kindOf = (lean, node) => lean.nameText(lean.field(node, 1));

// Borrowed, as all that comes out of a tree here.
function childrenOf(lean, node) {
  const children = lean.field(node, 2);
  return Array.from(
    { length: lean.arraySize(children) }, (_, i) => lean.element(children, i));
}

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
    if (isBoxed(syntax)) continue; // the parser found none
    if (lean.tag(syntax) !== NODE) return syntax;
    stack.push(...childrenOf(lean, syntax));
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
    const own = children.findIndex((child) => !isBoxed(child)
      && lean.tag(child) === ATOM && lean.text(lean.field(child, 1)) === ':='
      && placeOf(lean, child) === opening);
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
function refuseIdentifier(policy, name, isOption) {
  if (isOption) return allowedOption(policy, name) ? '' : 'set_option ' + name;
  const parts = name.replace(/[«»]/g, '').split('.');
  const isRefused = (part) => policy.words.has(part)
    || policy.reserved.some((prefix) => part.startsWith(prefix));
  return parts.some(isRefused) ? name : '';
}

// A tactic's configuration is compiled and run: it holds keys, literals and a few
// constants only.
function refuseKind(policy, name, inConfiguration) {
  if (policy.kinds.has(name)) return name;
  const plain = name.replace(/[«»]/g, '');
  const isKnown = !inConfiguration || /onfig|structInst/.test(plain)
    || policy.configuration.has(plain);
  return isKnown ? '' : `${plain} in a configuration`;
}

const KEYS = /(?:posConfigItem|negConfigItem|structInstLVal|dotIdent)$/;

function isFreeInConfiguration(policy, kind, index, name) {
  const isKey = KEYS.test(kind) || (kind.endsWith('valConfigItem') && index === 1);
  // Parentheses come with a nameless identifier.
  return !isKey && name !== '' && !policy.constants.has(name);
}

// The text of the first token below a tree.
function firstToken(lean, syntax) {
  while (!isBoxed(syntax) && lean.tag(syntax) === NODE) {
    const children = lean.field(syntax, 2);
    if (!lean.arraySize(children)) return '';
    syntax = lean.element(children, 0);
  }
  if (isBoxed(syntax)) return '';
  return lean.tag(syntax) === ATOM
    ? lean.text(lean.field(syntax, 1)) : lean.nameText(lean.field(syntax, 2));
}

// An attribute of a declaration: `local` or `scoped`, then the attribute itself.
function refuseAttribute(lean, policy, instance) {
  const name = firstToken(lean, lean.element(lean.field(instance, 2), 1));
  return policy.attributes.has(name) ? '' : `the attribute ${name}`;
}

const ATTRIBUTE = 'Lean.Parser.Term.attrInstance';

// Why syntax trees in a row may not be elaborated, '' when they may.
function walk(lean, policy, trees) {
  const kinds = new KindNames(lean);
  // Of a node: its kind, its children, whether it lies in a tactic's configuration.
  const stack = [['null', trees, false]];
  while (stack.length) {
    const [kind, children, inConfiguration] = stack.pop();
    let isOption = false;
    let isRaised = false; // the option takes numbers of four digits and more
    for (const [i, child] of children.entries()) {
      if (isBoxed(child)) continue;
      const tag = lean.tag(child);
      const value = isRaised ? firstToken(lean, child) : '';
      if (value && !/^[1-9][0-9]{3,}$/.test(value)) return 'a set_option to less than 1000';
      isRaised = isRaised && !value; // an empty node lies between
      if (tag === ATOM) {
        isOption = lean.text(lean.field(child, 1)) === 'set_option';
        continue;
      }
      if (tag === IDENTIFIER) {
        const name = lean.nameText(lean.field(child, 2));
        const word = refuseIdentifier(policy, name, isOption);
        if (word) return word;
        isRaised = isOption && policy.raised.has(name);
        const counts = inConfiguration && !isOption;
        if (counts && isFreeInConfiguration(policy, kind, i, name)) {
          return `${name} in a configuration`;
        }
      } else {
        const inner = kinds.get(lean.field(child, 1));
        const inside = inConfiguration || /config/i.test(inner);
        const refused = refuseKind(policy, inner, inside)
          || (inner === ATTRIBUTE ? refuseAttribute(lean, policy, child) : '');
        if (refused) return refused;
        stack.push([inner, childrenOf(lean, child), inside]);
      }
      isOption = false;
    }
  }
  return '';
}

// A proof is the value of a declaration; what is before it is trusted.
function refusalOfProof(lean, value, policy) {
  return walk(lean, policy, value);
}

// Commands come alone, before and after `in`, and inside `mutual`.
function refuseCommand(lean, policy, root) {
  if (isBoxed(root) || lean.tag(root) !== NODE) return ''; // the parser found none
  const kind = lean.nameText(lean.field(root, 1));
  if (!policy.commands.has(kind)) return `the command ${firstToken(lean, root) || kind}`;
  const children = lean.field(root, 2);
  let inner = [];
  if (kind === 'Lean.Parser.Command.in') {
    inner = [lean.element(children, 0), lean.element(children, 2)];
  } else if (kind === 'Lean.Parser.Command.mutual') {
    const commands = lean.field(lean.element(children, 1), 2);
    for (let i = 0; i < lean.arraySize(commands); i++) {
      inner.push(lean.element(commands, i));
    }
  }
  for (const command of inner) {
    const refused = refuseCommand(lean, policy, command);
    if (refused) return refused;
  }
  return '';
}

// A command of a file.
function refusalOfCommand(lean, root, policy) {
  return refuseCommand(lean, policy, root) || walk(lean, policy, [root]);
}

// The first node whose kind is a key of `kinds`, null when there is none.
function findKind(lean, root, kinds) {
  const names = new KindNames(lean);
  const stack = [root];
  while (stack.length) {
    const node = stack.pop();
    if (isBoxed(node) || lean.tag(node) !== NODE) continue;
    const kind = names.get(lean.field(node, 1));
    if (kinds.has(kind)) return { node, kind };
    const children = lean.field(node, 2);
    for (let i = lean.arraySize(children) - 1; i >= 0; i--) {
      stack.push(lean.element(children, i));
    }
  }
  return null;
}

// Where a node that begins with a word of the source begins.
function positionOf(lean, node, source) {
  const bytes = placeOf(lean, lean.element(lean.field(node, 2), 0));
  const read = Buffer.from(source.replaceAll('\r\n', '\n'), 'utf8'); // as Lean does
  const before = read.subarray(0, bytes).toString('utf8');
  const lines = before.split('\n');
  return { line: lines.length, column: [...lines[lines.length - 1]].length };
}

module.exports = {
  findKind, isBare, isNode, kindOf, lastToken, ownValue, positionOf, refusalOfCommand,
  refusalOfProof,
};
