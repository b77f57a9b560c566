// What a parsed proof or file may hold: the second line of defence, behind the textual
// scan. The rules' data is that of policy.py.
'use strict';
const { isBoxed } = require('./objects.js');
const {
  childrenOf, firstToken, identifierOf, isAtom, isNode, kindOf, kindReader, wordOf,
} = require('./syntax.js');

const ATTRIBUTE = 'Lean.Parser.Term.attrInstance';
const KEYS = /(?:posConfigItem|negConfigItem|structInstLVal|dotIdent)$/;

const withoutQuotes = (name) => name.replace(/[«»]/g, '');

class Rules {
  constructor(lean, policy, { isFile }) {
    const { options, kinds } = policy;
    Object.assign(this, {
      lean,
      // Names, and prefixes that end in a dot.
      options: isFile ? [...options, ...policy.file_options] : options,
      raised: new Set(policy.raised),
      kinds: new Set(isFile ? kinds : [...kinds, ...policy.proof_kinds]),
      words: new Set(policy.words),
      reserved: policy.reserved, // prefixes
      constants: new Set(policy.constants),
      configuration: new Set(policy.configuration), // kinds
      commands: new Set(policy.commands),
      attributes: new Set(isFile ? policy.attributes : []),
    });
  }

  // Why a proof may not be elaborated, '' when it may: the value of a declaration; what
  // is before it is trusted.
  refuseProof(value) {
    return this.walk(value);
  }

  // The same for a command of a file.
  refuseCommand(command) {
    return this.refuseKindOfCommand(command) || this.walk([command]);
  }

  // Commands come alone, before and after `in`, and inside `mutual`.
  refuseKindOfCommand(command) {
    const { lean } = this;
    if (!isNode(lean, command)) return ''; // the parser found none
    const kind = kindOf(lean, command);
    if (!this.commands.has(kind)) return `the command ${firstToken(lean, command) || kind}`;
    const children = childrenOf(lean, command);
    let inner = [];
    if (kind === 'Lean.Parser.Command.in') inner = [children[0], children[2]];
    if (kind === 'Lean.Parser.Command.mutual') inner = childrenOf(lean, children[1]);
    for (const each of inner) {
      const refused = this.refuseKindOfCommand(each);
      if (refused) return refused;
    }
    return '';
  }

  // Syntax trees in a row.
  walk(trees) {
    const { lean } = this;
    const readKind = kindReader(lean);
    // Of a node: its kind, its children, whether it lies in a tactic's configuration.
    const stack = [['null', trees, false]];
    while (stack.length) {
      const [kind, children, inConfiguration] = stack.pop();
      let isOption = false;
      let isRaised = false; // the option takes numbers of four digits and more
      for (const [i, child] of children.entries()) {
        if (isBoxed(child)) continue;
        const value = isRaised ? firstToken(lean, child) : '';
        if (value && !/^[1-9][0-9]{3,}$/.test(value)) {
          return 'a set_option to less than 1000';
        }
        isRaised = isRaised && !value; // an empty node lies between
        if (isAtom(lean, child)) {
          isOption = wordOf(lean, child) === 'set_option';
          continue;
        }
        if (isNode(lean, child)) {
          const inner = readKind(child);
          const inside = inConfiguration || /config/i.test(inner);
          const refused = this.refuseKind(inner, inside)
            || (inner === ATTRIBUTE ? this.refuseAttribute(child) : '');
          if (refused) return refused;
          stack.push([inner, childrenOf(lean, child), inside]);
        } else {
          const name = identifierOf(lean, child);
          const word = this.refuseIdentifier(name, isOption);
          if (word) return word;
          isRaised = isOption && this.raised.has(name);
          if (inConfiguration && !isOption && this.isFree(kind, i, name)) {
            return `${name} in a configuration`;
          }
        }
        isOption = false;
      }
    }
    return '';
  }

  refuseIdentifier(name, isOption) {
    if (isOption) return this.allowsOption(name) ? '' : 'set_option ' + name;
    const isRefused = (part) => this.words.has(part)
      || this.reserved.some((prefix) => part.startsWith(prefix));
    return withoutQuotes(name).split('.').some(isRefused) ? name : '';
  }

  allowsOption(name) {
    return this.options.some((allowed) => name === allowed
      || (allowed.endsWith('.') && name.startsWith(allowed)));
  }

  // A tactic's configuration is compiled and run: it holds keys, literals and a few
  // constants only.
  refuseKind(name, inConfiguration) {
    if (this.kinds.has(name)) return name;
    const plain = withoutQuotes(name);
    const isKnown = !inConfiguration || /onfig|structInst/.test(plain)
      || this.configuration.has(plain);
    return isKnown ? '' : `${plain} in a configuration`;
  }

  // Whether an identifier in a configuration is neither a key nor one of the constants.
  isFree(kind, index, name) {
    const isKey = KEYS.test(kind) || (kind.endsWith('valConfigItem') && index === 1);
    // Parentheses come with a nameless identifier.
    return !isKey && name !== '' && !this.constants.has(name);
  }

  // An attribute of a declaration: `local` or `scoped`, then the attribute itself.
  refuseAttribute(instance) {
    const name = firstToken(this.lean, childrenOf(this.lean, instance)[1]);
    return this.attributes.has(name) ? '' : `the attribute ${name}`;
  }
}

module.exports = { Rules };
