// The community REPL's protocol over the embedded Lean, for tests.
//
//   node repl.js '{"host": DIR, "install": DIR, "runtime": FILE, "memory_mb": N,
//                  "compiled": DIR, "word": TEXT}'
//
// Our program (see `fdjax.lean.backends.session`) is made once for all processes, under one
// `word` (see compiled.js). A session that begins with the same text under another word
// gets its declarations from there; all that follows them is elaborated as it comes.
//
// A request is one JSON object and a blank line, the answer is the same. Commands only:
// {"cmd", "env"?} -> {"env", "messages"?, "sorries"?} or {"message"}. As in the original,
// environments are kept for ever, `import` works without `env` only, a failed import
// answers a bare environment, and malformed JSON ends the process.
'use strict';
const fs = require('fs');
const path = require('path');
const { Worker, isMainThread } = require('worker_threads');
const { Modules, isMade, keptOf } = require('./compiled.js');

const STACK_MB = 256;
const FOREVER_MS = 1e9; // the REPL has no time limit
let lean = null;
const RENDER = [1 << 28, 60000]; // bytes, milliseconds
const PROGRAM = /^elab "(fdjax_[0-9a-f]{16})"/m;
const settings = JSON.parse(process.argv[2]);
const host = (file) => require(path.join(settings.host, file));

// Requests: lines up to a blank one.
function* requests() {
  const chunk = Buffer.alloc(1 << 16);
  let text = Buffer.alloc(0);
  for (;;) {
    const size = fs.readSync(0, chunk, 0, chunk.length, null);
    if (!size) return;
    text = Buffer.concat([text, chunk.subarray(0, size)]);
    for (let end; (end = text.indexOf('\n\n')) >= 0;) {
      yield text.subarray(0, end).toString('utf8');
      text = text.subarray(end + 2);
    }
  }
}

function place({ line, column }) {
  return { line, column };
}

class Repl {
  constructor(elaborator) {
    this.elaborator = elaborator;
    this.lean = elaborator.lean;
    this.modules = new Modules(elaborator, settings.compiled, settings.host);
    this.words = new Set(); // of sessions that began with the program
    this.environments = new Map();
    this.states = [];
    this.imports = []; // of the states with nothing else
    this.proofStates = 0;
    this.steps = []; // of the text elaborated last, see `resume`
    this.text = Buffer.alloc(0);
    this.base = null;
  }

  // With the program under the word that it was made with.
  reply(request) {
    const [, word] = PROGRAM.exec(request.cmd) ?? [];
    const isKnown = word
      && isMade(settings.compiled, request.cmd.replaceAll(word, settings.word));
    if (isKnown) this.words.add(word);
    const used = [...this.words].find((each) => request.cmd.includes(each));
    if (!used) return JSON.stringify(this.answer(request), null, 1);
    const cmd = request.cmd.replaceAll(used, settings.word);
    const answer = JSON.stringify(this.answer({ ...request, cmd }), null, 1);
    return answer.replaceAll(settings.word, used);
  }

  answer({ cmd, env }) {
    const { elaborator } = this;
    const cursor = elaborator.open(cmd);
    const program = isMade(settings.compiled, cmd) ? cmd : undefined;
    let state = this.states[env];
    let names = this.imports[env];
    if (env === undefined) {
      try {
        names = elaborator.importNames(cursor.imports);
        state = this.fresh(names, program);
      } catch (error) {
        return this.keep(this.fresh([]), []); // the original shows nothing else
      }
    } else {
      if (!state) return { message: 'Unknown environment.' };
      // No header is looked for: an `import` here is a command like any other, an
      // error.
      cursor.parser = this.beginning;
      if (names && program) state = this.fresh(names, program);
    }
    const shown = elaborator.render(cursor.messages, ...this.limits()).messages;
    const declared = names && program ? Buffer.byteLength(keptOf(program)) : 0;
    const answer = this.run(cmd, cursor, state, shown, declared);
    if (env === undefined && !this.steps.length) this.imports[answer.env] = names;
    return answer;
  }

  limits() {
    return [RENDER[0], performance.now() + RENDER[1]];
  }

  // The state behind imports, and with what was made of the program.
  fresh(names, program) {
    const { elaborator } = this;
    const key = JSON.stringify([names, program !== undefined]);
    if (!this.environments.has(key)) {
      const environment = program === undefined
        ? elaborator.environment(names) : this.modules.load(program, names);
      this.environments.set(key, elaborator.newState(environment, elaborator.options({})));
    }
    return this.environments.get(key);
  }

  // Where parsing begins without a header.
  get beginning() {
    return this.elaborator.open('').parser;
  }

  // What is declared in so many bytes at the beginning is in the state.
  run(cmd, cursor, base, shown, declared) {
    const { lean, elaborator } = this;
    const text = Buffer.from(cmd, 'utf8');
    let { steps, state } = this.resume(text, cursor, base);
    shown = steps.length ? [...steps[steps.length - 1].shown] : shown;
    for (;;) {
      const command = elaborator.parse(cursor, state);
      const end = lean.field(cursor.parser, 0) >>> 1;
      shown.push(...elaborator.render(command.messages, ...this.limits()).messages);
      if (end > declared || !this.modules.declares(command)) {
        const result = elaborator.elaborate(
          cursor, command, lean.retain(state), FOREVER_MS);
        const log = elaborator.messagesOf(result.state);
        shown.push(...elaborator.render(log, ...this.limits()).messages);
        state = elaborator.continueState(result.state);
        lean.release(result.state);
      }
      if (elaborator.isEnd(command.syntax)) break;
      steps.push({ end, state, parser: lean.retain(cursor.parser), shown: [...shown] });
    }
    Object.assign(this, { steps, text, base });
    return this.keep(state, shown);
  }

  // A text that begins like the one before is elaborated from where they differ, as
  // Lean does for editors: the tests send the same thousand lines again and again.
  resume(text, cursor, base) {
    const { lean } = this;
    let common = 0;
    const length = Math.min(text.length, this.text.length);
    while (common < length && text[common] === this.text[common]) common++;
    const steps = base === this.base
      ? this.steps.filter(({ end }) => end <= common).slice(0, -1) : [];
    if (!steps.length) return { steps: [], state: base };
    const { state, parser } = steps[steps.length - 1];
    cursor.parser = lean.retain(parser);
    return { steps, state };
  }

  keep(state, shown) {
    this.states.push(state);
    const messages = shown.map(({ severity, line, column, end_line, end_column, text }) => ({
      severity: severity === 'information' ? 'info' : severity,
      pos: { line, column },
      endPos: end_line === null ? null : { line: end_line, column: end_column },
      data: text.trim(),
    }));
    const sorries = shown.filter(({ kind }) => kind === 'hasSorry').map((message) => ({
      proofState: this.proofStates++,
      pos: place(message),
      goal: '',
      endPos: { line: message.end_line, column: message.end_column },
    }));
    return {
      ...(sorries.length && { sorries }),
      ...(messages.length && { messages }),
      env: this.states.length - 1,
    };
  }
}

async function main() {
  const { startLean } = host('runtime.js');
  const { Elaborator } = host('elaborator.js');
  const { writeAll } = host('pipe.js');
  lean = await startLean({
    install: settings.install, runtime: settings.runtime, memoryMiB: settings.memory_mb,
  });
  const elaborator = new Elaborator(lean, FOREVER_MS);
  elaborator.compiler.compilesAll = true; // as Lean does
  const repl = new Repl(elaborator);
  for (const request of requests()) {
    const answer = repl.reply(JSON.parse(request));
    writeAll(1, Buffer.from(answer + '\n\n'));
  }
  process.exit(0);
}

// The last words of a native Lean that has used up its memory or its stack.
function lastWords(error) {
  if (lean && lean.module.outOfMemory) return 'INTERNAL PANIC: out of memory';
  return error instanceof RangeError ? 'Stack overflow detected. Aborting.'
    : 'uncaught exception: ' + ((error && error.stack) || error);
}

function fail(error) {
  fs.writeSync(2, `${lastWords(error)}\n`);
  process.exit(1);
}

if (isMainThread) {
  const worker = new Worker(__filename, {
    argv: process.argv.slice(2),
    resourceLimits: { stackSizeMb: STACK_MB, maxOldGenerationSizeMb: 1024 },
  });
  worker.on('error', fail);
  worker.on('exit', (code) => process.exit(code));
} else {
  main().catch(fail);
}
