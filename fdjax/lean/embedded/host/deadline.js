// The time that an elaboration may take: a thread of its own ends it (watchdog.js).
'use strict';
const { Worker } = require('worker_threads');
const path = require('path');

// Cells, of 32 bits, that both threads see. The watchdog is armed by storing a token's
// address and a time and raising `sequence`; it is disarmed by storing token 0 and
// raising `sequence` again.
const CELLS = { sequence: 0, token: 1, milliseconds: 2, fired: 3 };

class Deadline {
  // After `graceMs` more than it was given, an elaboration is ended with its process.
  constructor(memory, graceMs) {
    this.cells = new Int32Array(new SharedArrayBuffer(16));
    new Worker(path.join(__dirname, 'watchdog.js'), {
      workerData: { cells: this.cells, memory, graceMs },
    }).unref();
  }

  arm(token, wallMs) {
    Atomics.store(this.cells, CELLS.fired, 0);
    Atomics.store(this.cells, CELLS.milliseconds, Math.max(1, Math.ceil(wallMs)));
    this.watch(token);
  }

  disarm() {
    this.watch(0);
  }

  watch(token) {
    Atomics.store(this.cells, CELLS.token, token);
    Atomics.add(this.cells, CELLS.sequence, 1);
    Atomics.notify(this.cells, CELLS.sequence);
  }

  // Whether the last elaboration was ended.
  get fired() {
    return Atomics.load(this.cells, CELLS.fired) === 1;
  }
}

module.exports = { CELLS, Deadline };
