// Stands in for a native `lean --run FILE ARGUMENT…`: the embedded Lean elaborates FILE
// and its interpreter runs `main`, with real standard streams.
//
//   node lean.js HOST_DIR INSTALL_DIR RUNTIME COMPILED_DIR --run FILE ARGUMENT…
//   node lean.js HOST_DIR INSTALL_DIR RUNTIME COMPILED_DIR --compile FILE
//
// Elaborating the checker is most of a start here. So the second command keeps what came
// of it, and the first goes on from there where the text is the same.
//
// What a native toolchain has and this one lacks: threads (so the checker's watchdog is
// switched off; the parent's hard limit remains).
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const path = require('path');
const { Worker, isMainThread } = require('worker_threads');

const STACK_MB = 256;
const FOREVER_MS = 3600000;
// Field numbers of Lean structures.
const MODULE = { entries: 4 };
const EXTENSION = { asyncMode: 2 };
const [hostDir, install, runtime, compiledDir, action, file, ...programArguments] =
  process.argv.slice(2);
const { isBoxed, NONE } = require(path.join(hostDir, 'objects.js'));
let lean = null;

function useRealStreams(lean) {
  const { writeAll } = require(path.join(hostDir, 'pipe.js'));
  const { FS } = lean.internals;
  const stdin = FS.getStream(0);
  stdin.stream_ops = {
    ...stdin.stream_ops,
    read(stream, buffer, offset, length) {
      const chunk = Buffer.alloc(length);
      const size = fs.readSync(0, chunk, 0, length, null);
      buffer.set(chunk.subarray(0, size), offset);
      return size;
    },
  };
  const stdout = FS.getStream(1);
  stdout.stream_ops = {
    ...stdout.stream_ops,
    write(stream, buffer, offset, length) {
      const chunk = Buffer.from(buffer.slice(offset, offset + length));
      writeAll(1, chunk);
      return length;
    },
  };
}

function elaborate(elaborator, source) {
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
      throw Error(`${file}:${first.line}: ${first.text}`);
    }
    if (end) return elaborator.environmentOf(state);
  }
}

// What was elaborated with another text of this file is not taken for it.
function moduleOf(source) {
  const hash = crypto.createHash('sha256').update(fs.readFileSync(__filename));
  return `Compiled${hash.update(source).digest('hex')}`;
}

// Lean writes into a file system of its own, in memory.
function compile(elaborator, source, compiled) {
  const { lean } = elaborator;
  const inside = `/${path.basename(compiled)}`;
  const environment = elaborate(elaborator, source);
  lean.value(lean.call('l_Lean_writeModule', environment, lean.string(inside), 1), inside);
  fs.writeFileSync(`${compiled}.new`, lean.internals.FS.readFile(inside));
  fs.renameSync(`${compiled}.new`, compiled); // whole or not at all
}

function importCompiled(elaborator, module) {
  const { lean } = elaborator;
  const { FS, NODEFS } = lean.internals;
  FS.mkdirTree('/compiled');
  FS.mount(NODEFS, { root: compiledDir }, '/compiled');
  const folders = ['/lean/lib/lean', '/compiled'].reduceRight(
    (tail, folder) => lean.constructorObject(1, [lean.string(folder), tail]), NONE);
  lean.release(lean.call('lean_st_ref_set', lean.global('l_Lean_searchPathRef'), folders));
  return addCode(lean, lean.retain(elaborator.environment([module])), module);
}

// This build knows an imported module's code under the names of constants only: what the
// compiler has split off from them, it is told here.
function addCode(lean, environment, module) {
  const read = lean.call('l_Lean_readModuleData', lean.string(`/compiled/${module}.olean`));
  const data = lean.field(lean.value(read, module), 0);
  const code = lean.elements(lean.field(data, MODULE.entries)).find(
    (each) => lean.nameText(lean.field(each, 0)) === 'Lean.IR.declMapExt');
  const extension = lean.global('l_Lean_IR_declMapExt');
  const mode = lean.field(lean.field(extension, 0), EXTENSION.asyncMode);
  for (const declaration of lean.elements(lean.field(code, 1))) {
    const name = lean.retain(lean.field(declaration, 0));
    const known = lean.call(
      'l_Lean_Environment_getModuleIdxFor_x3f', lean.retain(environment), name);
    if (!isBoxed(known)) continue;
    environment = lean.call(
      'l_Lean_PersistentEnvExtension_addEntry___redArg', extension, environment,
      declaration, mode, NONE);
  }
  return environment;
}

// The value of a constant, compiled or interpreted.
function evaluate(lean, environment, name) {
  const options = lean.retain(lean.global('l_Lean_Options_empty'));
  const result = lean.call('lean_eval_const', environment, options, lean.name(name));
  if (lean.tag(result) === 0) throw Error(lean.text(lean.field(result, 0)));
  return lean.takeField(result, 0);
}

// The checker's settings as they must be here: no threads, and Lean's own file system.
function adapted(argument) {
  const settings = JSON.parse(argument);
  return JSON.stringify({
    ...settings, watchdog: false, search_path: ['/lean/lib/lean'],
  });
}

async function run() {
  const source = fs.readFileSync(file, 'utf8');
  const module = moduleOf(source);
  const compiled = path.join(compiledDir, `${module}.olean`);
  if (action === '--compile' && fs.existsSync(compiled)) process.exit(0);
  const { startLean } = require(path.join(hostDir, 'runtime.js'));
  const { Elaborator } = require(path.join(hostDir, 'elaborator.js'));
  lean = await startLean({ install, runtime, memoryMiB: 2048 });
  useRealStreams(lean);
  // As in stock Lean, this option switches the kernel off.
  lean.setField(lean.global('l_Lean_debug_skipKernelTC'), 0, lean.name('debug.skipKernelTC'));
  const elaborator = new Elaborator(lean, FOREVER_MS);
  elaborator.compiler.compilesAll = true; // as Lean does
  if (action === '--compile') {
    compile(elaborator, source, compiled);
    process.exit(0);
  }
  const environment = fs.existsSync(compiled)
    ? importCompiled(elaborator, module) : elaborate(elaborator, source);
  const main = evaluate(lean, environment, 'main');
  const list = programArguments.map(adapted).reduceRight(
    (tail, argument) => lean.constructorObject(1, [lean.string(argument), tail]), NONE);
  lean.value(lean.call('lean_apply_2', main, list, NONE), 'main');
  process.exit(0);
}

// The last words of a native Lean that has used up its memory or its stack.
function lastWords(error) {
  if (lean && lean.module.outOfMemory) return 'INTERNAL PANIC: out of memory';
  return error instanceof RangeError ? 'Stack overflow detected. Aborting.'
    : ((error && error.stack) || error);
}

function fail(error) {
  fs.writeSync(2, `${lastWords(error)}\n`);
  process.exit(1);
}

if (isMainThread) {
  const worker = new Worker(__filename, {
    argv: process.argv.slice(2), resourceLimits: { stackSizeMb: STACK_MB },
  });
  worker.on('error', fail);
  worker.on('exit', (code) => process.exit(code));
} else {
  process.on('uncaughtException', fail);
  run().catch(fail);
}
