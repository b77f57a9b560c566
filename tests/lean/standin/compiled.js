// Modules that keep what came of elaborating a text of ours, which is most of a start.
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const path = require('path');

const FOREVER_MS = 3600000;
// Field numbers of Lean structures.
const MODULE = { entries: 4 };
const EXTENSION = { asyncMode: 2 };
const DECLARATIONS = ['Lean.Parser.Command.declaration', 'Lean.Parser.Command.mutual'];

// What of a text is kept: all before the first command that it defines, for none of that
// has a parser of its own.
const keptOf = (source) => source.split(/^elab /m)[0];

// The module made of what a text has behind its imports. Nothing made of another text, or
// by another version of this file, is taken for it.
function nameOf(source) {
  const hash = crypto.createHash('sha256').update(fs.readFileSync(__filename));
  const text = keptOf(source).replace(/^(import .*\n)*/, '');
  return `Compiled${hash.update(text).digest('hex')}`;
}

const fileOf = (folder, source) => path.join(folder, `${nameOf(source)}.olean`);
const isMade = (folder, source) => fs.existsSync(fileOf(folder, source));

class Modules {
  // `folder` is where they are, `host` where the host's files are.
  constructor(elaborator, folder, host) {
    const { NONE, isBoxed } = require(path.join(host, 'objects.js'));
    const { kindOf } = require(path.join(host, 'syntax.js'));
    const { lean } = elaborator;
    Object.assign(this, { elaborator, lean, folder, NONE, isBoxed, kindOf });
    this.mount();
  }

  // Lean finds the modules beside its library.
  mount() {
    const { lean } = this;
    const { FS, NODEFS } = lean.internals;
    FS.mkdirTree('/compiled');
    FS.mount(NODEFS, { root: this.folder }, '/compiled');
    const folders = ['/lean/lib/lean', '/compiled'].reduceRight(
      (tail, each) => lean.constructorObject(1, [lean.string(each), tail]), this.NONE);
    lean.release(
      lean.call('lean_st_ref_set', lean.global('l_Lean_searchPathRef'), folders));
  }

  // The environment behind a text.
  elaborate(source, what) {
    const { elaborator } = this;
    const cursor = elaborator.open(source);
    const imports = elaborator.importNames(cursor.imports);
    let state = elaborator.newState(
      elaborator.environment(imports), elaborator.options({ maxHeartbeats: 400000 }));
    for (;;) {
      const command = elaborator.parse(cursor, state);
      const logs = [command.messages];
      const end = elaborator.isEnd(command.syntax);
      if (!end) {
        state = elaborator.elaborate(cursor, command, state, FOREVER_MS).state;
        logs.push(elaborator.takeMessages(state));
      }
      for (const log of logs) {
        if (!elaborator.hasErrors(log)) continue;
        const [first] = elaborator.render(log, 4096, Infinity).messages;
        throw Error(`${what}:${first.line}: ${first.text}`);
      }
      if (end) return elaborator.environmentOf(state);
    }
  }

  // Whether what a command does is in the module of its text.
  declares({ syntax }) {
    return DECLARATIONS.includes(this.kindOf(this.lean, syntax));
  }

  // Lean writes into a file system of its own, in memory.
  make(source, what) {
    const { lean } = this;
    const file = fileOf(this.folder, source);
    const inside = `/${path.basename(file)}`;
    const environment = this.elaborate(keptOf(source), what);
    lean.value(
      lean.call('l_Lean_writeModule', environment, lean.string(inside), 1), inside);
    fs.writeFileSync(`${file}.new`, lean.internals.FS.readFile(inside));
    fs.renameSync(`${file}.new`, file); // whole or not at all
  }

  // The environment (owned) of what was made of a text, and of other modules.
  load(source, others = []) {
    const { lean, elaborator } = this;
    const name = nameOf(source);
    return this.addCode(lean.retain(elaborator.environment([...others, name])), name);
  }

  // This build knows an imported module's code under the names of constants only: what
  // the compiler has split off from them, it is told here.
  addCode(environment, name) {
    const { lean } = this;
    const read = lean.call(
      'l_Lean_readModuleData', lean.string(`/compiled/${name}.olean`));
    const data = lean.field(lean.value(read, name), 0);
    const code = lean.elements(lean.field(data, MODULE.entries)).find(
      (each) => lean.nameText(lean.field(each, 0)) === 'Lean.IR.declMapExt');
    const extension = lean.global('l_Lean_IR_declMapExt');
    const mode = lean.field(lean.field(extension, 0), EXTENSION.asyncMode);
    for (const declaration of lean.elements(lean.field(code, 1))) {
      const declared = lean.retain(lean.field(declaration, 0));
      const known = lean.call(
        'l_Lean_Environment_getModuleIdxFor_x3f', lean.retain(environment), declared);
      if (!this.isBoxed(known)) continue;
      environment = lean.call(
        'l_Lean_PersistentEnvExtension_addEntry___redArg', extension, environment,
        declaration, mode, this.NONE);
    }
    return environment;
  }
}

module.exports = { Modules, isMade, keptOf };
