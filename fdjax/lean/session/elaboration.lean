/-! ### Parsing and elaboration -/

structure Cursor where
  input : Parser.InputContext
  parser : Parser.ModuleParserState := {}
  state : Command.State

def scopeOf (state : Command.State) : Scope × List Scope :=
  match state.scopes with
  | scope :: outer => (scope, outer)
  | [] => ({ header := "" }, [])

/-- A state without messages that goes on from `state`; async elaboration would leave
messages and kernel checks to threads. -/
def continueState (state : Command.State) (heartbeats : Option Nat) : Command.State :=
  let (scope, outer) := scopeOf state
  let options := setOption scope.opts `Elab.async (.ofBool false)
  let options := match heartbeats with
    | some count => setOption options `maxHeartbeats (.ofNat count)
    | none => options
  { Command.mkState state.env {} options with
    scopes := { scope with opts := options } :: outer
    nextMacroScope := state.nextMacroScope
    ngen := state.ngen
    infoState := { enabled := false } }

def openText (source : String) (state : Command.State) : Cursor :=
  { input := inputContext source, state }

def parse (cursor : Cursor) : Syntax × List Message × Cursor :=
  let (scope, _) := scopeOf cursor.state
  let context := {
    env := cursor.state.env, options := scope.opts
    currNamespace := scope.currNamespace, openDecls := scope.openDecls }
  let (command, parser, log) :=
    Parser.parseCommand cursor.input context cursor.parser {}
  (command, log.toList, { cursor with parser })

def isError (message : Message) : Bool :=
  match message.severity with
  | .error => true
  | _ => false

def hasErrors : List Message → Bool
  | [] => false
  | message :: rest => isError message || hasErrors rest

/-- Elaborate a parsed command: whether it failed, what Lean said about it, and what is
next. The state forgets the messages, as Lean's own frontend does:
`elabCommandTopLevel` drops those of commands before. -/
def elaborate (cursor : Cursor) (before : Parser.ModuleParserState) (command : Syntax) :
    CommandElabM (Bool × List Message × Cursor) := do
  let context := { (← read) with
    fileName := cursor.input.fileName, fileMap := cursor.input.fileMap, cmdPos := before.pos
    ref := .missing, macroStack := [], currRecDepth := 0, snap? := none }
  let state ← IO.mkRef cursor.state
  let result ← (elabCommandTopLevel command context state).toBaseIO
  let failed := match result with
    | .ok _ => false
    | .error _ => true
  let next ← state.get
  let failed := failed || next.messages.hasErrors
  let state := { next with messages := {}, traceState := {} }
  return (failed, next.messages.toList, { cursor with state })

/-- The same for a command that is not trusted. -/
def elaborateUntrusted (rules : Rules) (cursor : Cursor)
    (before : Parser.ModuleParserState) (command : Syntax) :
    CommandElabM (Bool × List Message × Cursor) :=
  match withoutCode with
  | some restricted => restricted rules.data (elaborate cursor before command)
  | none => elaborate cursor before command

/-- Elaborate all commands of trusted text: what Lean said, and the state after it. -/
partial def elaborateAll (cursor : Cursor) (messages : List Message := []) :
    CommandElabM (List Message × Command.State) := do
  let before := cursor.parser
  let (command, log, cursor) := parse cursor
  let messages := join messages log
  if Parser.isTerminalCommand command then
    return (messages, cursor.state)
  let (_, said, cursor) ← elaborate cursor before command
  elaborateAll cursor (join messages said)

/-- The modules that a file imports and `env` lacks; and where its commands begin. -/
def openFile (source : String) (state : Command.State) :
    IO (List Message × List Name × Cursor) := do
  let cursor := openText source state
  let (header, parser, log) ← Parser.parseHeader cursor.input
  let missing := missingModules state.env (headerToImports header).toList
  return (log.toList, missing, { cursor with parser })
where
  missingModules (env : Environment) : List Import → List Name
    | [] => []
    | { module, .. } :: rest =>
      let missing := missingModules env rest
      if (env.getModuleIdx? module).isSome then missing else module :: missing
