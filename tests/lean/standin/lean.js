// Stands in for a native `lean --run FILE ARGUMENT…`: the embedded Lean elaborates FILE
// and its interpreter runs `main`, with real standard streams.
//
//   node lean.js HOST_DIR INSTALL_DIR RUNTIME --run FILE ARGUMENT…
//
// What a native toolchain has and this one lacks: threads (so the checker's watchdog is
// switched off; the parent's hard limit remains).
'use strict';
const fs = require('fs');
const path = require('path');
const { Worker, isMainThread } = require('worker_threads');

const STACK_MB = 256;
const FOREVER_MS = 3600000;
let lean = null;
const [hostDir, install, runtime, , file, ...programArguments] = process.argv.slice(2);

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

// The value of a constant, compiled or interpreted.
function evaluate(lean, environment, name) {
  const { NONE } = require(path.join(hostDir, 'objects.js'));
  const options = lean.retain(lean.global('l_Lean_Options_empty'));
  const result = lean.call('lean_eval_const', environment, options, lean.name(name));
  if (lean.tag(result) === 0) throw Error(lean.text(lean.field(result, 0)));
  return { main: lean.takeField(result, 0), NONE };
}

// The checker's settings as they must be here: no threads, and Lean's own file system.
function adapted(argument) {
  const settings = JSON.parse(argument);
  return JSON.stringify({
    ...settings, watchdog: false, search_path: ['/lean/lib/lean'],
  });
}

async function run() {
  const { startLean } = require(path.join(hostDir, 'runtime.js'));
  const { Elaborator } = require(path.join(hostDir, 'elaborator.js'));
  lean = await startLean({ install, runtime, memoryMiB: 2048 });
  useRealStreams(lean);
  // As in stock Lean, this option switches the kernel off.
  lean.setField(lean.global('l_Lean_debug_skipKernelTC'), 0, lean.name('debug.skipKernelTC'));
  const elaborator = new Elaborator(lean, FOREVER_MS);
  elaborator.compiler.compilesAll = true; // as Lean does
  const source = fs.readFileSync(file, 'utf8');
  const { main, NONE } = evaluate(lean, elaborate(elaborator, source), 'main');
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
