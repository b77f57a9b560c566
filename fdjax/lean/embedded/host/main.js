// A persistent Lean checker: JSON lines on stdin, JSON lines on stdout.
//
//   node main.js '{"install": DIR, "runtime": FILE, "memory_mb": N, "grace_ms": N,
//                  "policy": {"options": [], "kinds": [], …}}'
//
// First line out: {"ready": true, ...}. Then per request {"nonce", "kind", "name",
// "header", "statement", "opening", "source", "heartbeats", "wall_ms", "output_bytes"}
// one line {"started": nonce} when the proof's own time begins, and one report with the nonce.
// Kinds: statement, proof (`source` is statement and proof), file (`source` is to be
// elaborated on the header), run (`source` alone; no name, header, statement, opening).
// `statement` ends in `:= sorry`, which begins at byte `opening` of it as Lean reads it;
// so does the `:= by` before a proof.
// The nonce exists only in JavaScript: nothing that Lean elaborates can read it.
'use strict';
const fs = require('fs');
const { Worker, isMainThread } = require('worker_threads');
const { writeAll } = require('./pipe.js');

const STACK_MB = 256; // V8 gives the first thread's stack a fixed, small size
const JAVASCRIPT_HEAP_MB = 1024;
const DAMAGED = 71;
const WARM = 'theorem warm (a b : Nat) (h : a < b) : a ≤ b ';

const send = (value) => writeAll(1, Buffer.from(JSON.stringify(value) + '\n'));

function fail(error) {
  const text = String((error && error.stack) || error).slice(0, 2000);
  try {
    send({ fatal: text });
  } finally {
    process.exit(DAMAGED);
  }
}

// Blocking reads: nothing else has to run on this thread.
function* lines() {
  const chunk = Buffer.alloc(1 << 16);
  let buffered = [];
  for (;;) {
    const size = fs.readSync(0, chunk, 0, chunk.length, null);
    if (!size) return;
    let start = 0;
    for (let end; (end = chunk.subarray(0, size).indexOf(10, start)) >= 0;) {
      buffered.push(Buffer.from(chunk.subarray(start, end)));
      yield Buffer.concat(buffered).toString('utf8');
      buffered = [];
      start = end + 1;
    }
    buffered.push(Buffer.from(chunk.subarray(start, size)));
  }
}

function serve(checker, lean, request) {
  const { nonce } = request;
  let report;
  try {
    report = checker.check(request, () => send({ started: nonce }));
  } catch (error) {
    // Lean's state may be damaged: the parent starts a fresh process.
    const outOfMemory = lean.module.outOfMemory === true || error instanceof RangeError;
    send({ nonce, crash: String(error && error.message), out_of_memory: outOfMemory });
    process.exit(DAMAGED);
  }
  report.nonce = nonce;
  report.heap_mb = Math.round(lean.internals.memory.buffer.byteLength / (1 << 20));
  send(report);
}

async function run(settings) {
  const { startLean } = require('./runtime.js');
  const { Elaborator } = require('./elaborator.js');
  const { Checker } = require('./checker.js');
  const begin = performance.now();
  const lean = await startLean({
    install: settings.install,
    runtime: settings.runtime,
    memoryMiB: settings.memory_mb,
  });
  const { policy, grace_ms, heartbeats } = settings;
  const checker = new Checker(new Elaborator(lean, grace_ms, policy), policy, heartbeats);
  const warm = checker.check({
    kind: 'proof', name: 'warm', header: '',
    statement: WARM + ':= sorry', source: WARM + ':= by omega',
    opening: Buffer.byteLength(WARM),
    heartbeats, wall_ms: 60000, output_bytes: 4096,
  }, () => {});
  const ready = Boolean(warm.target && warm.target.matches_statement);
  send({
    ready,
    seconds: (performance.now() - begin) / 1000,
    heap_mb: Math.round(lean.internals.memory.buffer.byteLength / (1 << 20)),
    warm: ready ? undefined : warm,
  });
  for (const line of lines()) serve(checker, lean, JSON.parse(line));
  process.exit(0);
}

if (isMainThread) {
  const worker = new Worker(__filename, {
    argv: process.argv.slice(2),
    resourceLimits: {
      stackSizeMb: STACK_MB, maxOldGenerationSizeMb: JAVASCRIPT_HEAP_MB,
    },
  });
  worker.on('error', fail);
  worker.on('exit', (code) => process.exit(code));
} else {
  process.on('uncaughtException', fail);
  run(JSON.parse(process.argv[2])).catch(fail);
}
