// Stands in for a native `lean --run FILE ARGUMENT…`: the embedded Lean elaborates FILE
// and its interpreter runs `main`, with real standard streams.
//
//   node lean.js HOST_DIR INSTALL_DIR RUNTIME COMPILED_DIR --run FILE ARGUMENT…
//   node lean.js HOST_DIR INSTALL_DIR RUNTIME COMPILED_DIR --compile FILE…
//
// The second command keeps what came of elaborating files (see compiled.js), and the first
// goes on from there where the text is the same.
//
// What a native toolchain has and this one lacks: threads (so the checker's watchdog is
// switched off; the parent's hard limit remains).
'use strict';
const fs = require('fs');
const path = require('path');
const { Worker, isMainThread } = require('worker_threads');
const { Modules, isMade } = require('./compiled.js');

const STACK_MB = 256;
const FOREVER_MS = 3600000;
const [hostDir, install, runtime, compiledDir, action, ...rest] = process.argv.slice(2);
const { NONE } = require(path.join(hostDir, 'objects.js'));
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
  const read = (file) => fs.readFileSync(file, 'utf8');
  const missing = rest.filter(
    (file) => action === '--compile' && !isMade(compiledDir, read(file)));
  if (action === '--compile' && !missing.length) process.exit(0);
  const { startLean } = require(path.join(hostDir, 'runtime.js'));
  const { Elaborator } = require(path.join(hostDir, 'elaborator.js'));
  lean = await startLean({ install, runtime, memoryMiB: 2048 });
  useRealStreams(lean);
  // As in stock Lean, this option switches the kernel off.
  lean.setField(lean.global('l_Lean_debug_skipKernelTC'), 0, lean.name('debug.skipKernelTC'));
  const elaborator = new Elaborator(lean, FOREVER_MS);
  elaborator.compiler.compilesAll = true; // as Lean does
  const modules = new Modules(elaborator, compiledDir, hostDir);
  if (action === '--compile') {
    for (const file of missing) modules.make(read(file), file);
    process.exit(0);
  }
  const [file, ...programArguments] = rest;
  const source = read(file);
  const environment = isMade(compiledDir, source)
    ? modules.load(source) : modules.elaborate(source, file);
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
