// A thread that ends an elaboration at its deadline, whatever the main thread does.
'use strict';
const { workerData } = require('worker_threads');
const { CELLS } = require('./deadline.js');

const { cells, memory, graceMs } = workerData;
const TRUE = (1 << 1) | 1; // Lean's boxed `true`
const REPEAT_MS = 20;

for (;;) {
  const sequence = Atomics.load(cells, CELLS.sequence);
  const token = Atomics.load(cells, CELLS.token);
  const milliseconds = Atomics.load(cells, CELLS.milliseconds);
  if (!token) {
    Atomics.wait(cells, CELLS.sequence, sequence);
    continue;
  }
  if (Atomics.wait(cells, CELLS.sequence, sequence, milliseconds) !== 'timed-out') continue;
  Atomics.store(cells, CELLS.fired, 1);
  // A cancel token is a reference to a Bool: object header (8 bytes), then the value.
  const cell = (token + 8) >>> 2;
  const giveUp = performance.now() + graceMs;
  while (Atomics.load(cells, CELLS.sequence) === sequence) {
    Atomics.store(new Int32Array(memory.buffer), cell, TRUE);
    Atomics.wait(cells, CELLS.sequence, sequence, REPEAT_MS);
    // Code that never looks at its token (big-number arithmetic) only ends this way,
    // also when the parent process is gone and cannot end us.
    if (performance.now() > giveUp) process.kill(process.pid, 'SIGKILL');
  }
}
