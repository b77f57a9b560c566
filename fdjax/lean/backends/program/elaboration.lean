/-! ### Parsing and elaboration -/

structure Cursor where
  input : Parser.InputContext
  parser : Parser.ModuleParserState := {}
  state : Command.State

def scopeOf (state : Command.State) : Scope × List Scope :=
  match state.scopes with
  | scope :: outer => (scope, outer)
  | [] => ({ header := "" }, [])

/-- A state with this environment and no messages; async elaboration would leave messages
and kernel checks to threads. -/
def freshState (env : Environment) (options : Options := {}) : Command.State :=
  Command.mkState env {} (setOption options `Elab.async (.ofBool false))

/-- A state without messages that goes on from `state`. -/
def continueState (state : Command.State) (adjust : Options → Options := id) :
    Command.State :=
  let (scope, outer) := scopeOf state
  let fresh := freshState state.env (adjust scope.opts)
  { fresh with
    scopes := { scope with opts := (scopeOf fresh).1.opts } :: outer
    nextMacroScope := state.nextMacroScope
    ngen := state.ngen
    infoState := { enabled := false } }

/-- Pinned for what is checked. Auto-bound names would turn a misspelt type into a
variable and change what is proved; linters only cost time. -/
def pinned (options : Options) : Options :=
  setOption (setOption (setOption options `autoImplicit (.ofBool false))
    `relaxedAutoImplicit (.ofBool false)) `linter.all (.ofBool false)

/-- A submission's own limit. Lean's default leaves a header's setting in force. -/
def limited (heartbeats : Nat) (options : Options) : Options :=
  if heartbeats == 200000 then options
  else setOption options `maxHeartbeats (.ofNat heartbeats)

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

/-- Whether a command is the end of the text. For Lean, `#exit` and an `import` behind
another command are ends as well, and what follows them is never read. -/
def isEnd (command : Syntax) : Bool := command.getKind == ``Parser.Command.eoi

/-- Where a token begins, in bytes; none where that is not known. -/
def placeOf : SourceInfo → Option Nat
  | .original _ place _ _ => some place.byteIdx
  | .synthetic place _ _ => some place.byteIdx
  | .none => none

mutual
/-- The last token of a tree, none where it has none. -/
partial def lastToken (tree : Syntax) : Option SourceInfo :=
  match tree with
  | .node _ _ children => lastOf children.toList
  | .atom info _ => some info
  | .ident info _ _ _ => some info
  | .missing => none

partial def lastOf : List Syntax → Option SourceInfo
  | [] => none
  | first :: rest => match lastOf rest with
    | some found => some found
    | none => lastToken first
end

/-- Whether a node holds a whole command, or parts of one in a row. -/
def isGroup (kind : Name) : Bool :=
  kind == ``Parser.Command.in || kind == groupKind || kind == nullKind

/-- The trees behind our own `:=`, which begins at byte `opening` of the text; none where
the parser does not take it for that of the declaration: then what is before it is more or
less than a statement. A declaration by a macro of the header has its `:=` at the top.
`depth` counts the nodes above that are no groups. -/
partial def ownValue (opening depth : Nat) (tree : Syntax) : Option (List Syntax) :=
  let kind := tree.getKind
  let depth := if isGroup kind then depth else depth + 1
  let children := tree.getArgs.toList
  match behind children with
  | some value =>
    if kind == ``Parser.Command.declValSimple || depth == 1 then some value else none
  | none => match lastWithToken children with
    | some last => ownValue opening depth last
    | none => none
where
  behind : List Syntax → Option (List Syntax)
    | [] => none
    | .atom info ":=" :: rest =>
      if placeOf info == some opening then some rest else behind rest
    | _ :: rest => behind rest
  lastWithToken : List Syntax → Option Syntax
    | [] => none
    | first :: rest => match lastWithToken rest with
      | some last => some last
      | none => match lastToken first with
        | some _ => some first
        | none => none

/-- Whether a value is no more than the one token behind our own `:=`. -/
def isBare (opening : Nat) (value : List Syntax) : Bool :=
  match lastOf value with
  | some token => match placeOf token with
    | some place => place ≤ opening + ":= ".length
    | none => true
  | none => true

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

/-- Whether the time until `deadline`, in milliseconds, is used up. -/
def isOver (deadline : Nat) : CommandElabM Bool := do
  return (← isCancelled) || (← IO.monoMsNow) > deadline

/-- Elaborate the commands of trusted text up to the first that fails: whether one does,
what Lean said, and the state after them. -/
partial def elaborateAll (cursor : Cursor) (deadline : Nat)
    (messages : List Message := []) : CommandElabM (Bool × List Message × Command.State) := do
  let before := cursor.parser
  let (command, log, cursor) := parse cursor
  let messages := join messages log
  if hasErrors log || isEnd command then return (hasErrors log, messages, cursor.state)
  let (failed, said, cursor) ← elaborate cursor before command
  let messages := join messages said
  if failed || (← isOver deadline) then return (true, messages, cursor.state)
  elaborateAll cursor deadline messages

/-- What a text begins with: imports and the like. -/
structure FileHeader where
  /-- What the parser says about it. -/
  messages : List Message
  /-- Modules that it imports and the session's environment lacks. -/
  missing : List Name
  /-- Whether it has `import`, `module` or `prelude` at all. -/
  isHeaderless : Bool
  /-- Whether it says `prelude`. -/
  isPrelude : Bool

/-- The header of a file; and where its commands begin. -/
def openFile (source : String) (state : Command.State) : IO (FileHeader × Cursor) := do
  let cursor := openText source state
  let (header, parser, log) ← Parser.parseHeader cursor.input
  let imports := (headerToImports header).toList
  return ({
    messages := log.toList
    missing := missingModules state.env imports
    isHeaderless := (lastToken header).isNone
    isPrelude := !hasInit imports }, { cursor with parser })
where
  hasInit : List Import → Bool
    | [] => false
    | { module, .. } :: rest => module == `Init || hasInit rest
  missingModules (env : Environment) : List Import → List Name
    | [] => []
    | { module, .. } :: rest =>
      let missing := missingModules env rest
      if (env.getModuleIdx? module).isSome then missing else module :: missing
