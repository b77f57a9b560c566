/-
Checks proofs against trusted statements inside a Lake project; reports facts, the
parent decides. The embedded Lean's checker.js does the same, step by step.

  lean --run checker.lean '{"search_path": [DIR], "policy": {…}, "watchdog": true}'

First line out: {"ready": true, …}. Then per request {"nonce", "kind", "name", "header",
"statement", "opening", "source", "heartbeats", "wall_ms", "output_bytes"} one line
{"started": nonce} when the proof's own time begins, and one report with the nonce. Kinds:
statement, proof (`source` is statement and proof), file (`source` is to be elaborated on
the header), run (`source` alone; no name, header, statement, opening). `statement` ends in
`:= sorry`, which begins at byte `opening` of it as Lean reads it; so does the `:= by`
before a proof.
-/
import Lean

open Lean Elab

namespace Fdjax

/-- What a value that Lean compiles may be made of; see fdjax/lean/facts/policy.py. -/
structure Data where
  /-- Functions that it may call. -/
  functions : NameSet
  /-- Those whose result may be much larger than what they are given. -/
  growing : NameSet
  /-- The largest number that those may be given. -/
  largest : Nat
  /-- Types that are laid out otherwise than their constructors say. -/
  unlike : NameSet
  /-- The most parts it may have. -/
  nodes : Nat

/-- What proofs and files may contain; see fdjax/lean/facts/policy.py. -/
structure Policy where
  options : List String
  /-- Those that take numbers of four digits and more only. -/
  raised : List String
  kinds : NameSet
  words : NameSet
  /-- What no part of a name may begin with. -/
  reserved : List String
  /-- What a tactic's configuration may hold besides keys and literals. -/
  constants : NameSet
  /-- Syntax node kinds of a tactic's configuration, as text. -/
  configuration : List String
  /-- What Lean compiles. -/
  data : Data
  /-- Commands that a file may hold; none for a proof, which is no file. -/
  commands : Option NameSet
  attributes : NameSet

structure Settings where
  searchPath : List System.FilePath
  proofs : Policy
  files : Policy
  /-- Whether a thread cancels elaboration at its deadline. -/
  watchdog : Bool

structure Request where
  nonce : String
  kind : String
  name : String
  header : String
  statement : String
  opening : Nat
  source : String
  heartbeats : Nat
  wallMs : Nat
  outputBytes : Nat

/-! ## JSON -/

def text (json : Json) (key : String) : String :=
  match json.getObjVal? key with
  | .ok (.str value) => value
  | _ => ""

def number (json : Json) (key : String) : Nat :=
  match json.getObjVal? key with
  | .ok (.num value) => value.toFloat.toUInt64.toNat
  | _ => 0

def strings (json : Json) (key : String) : List String :=
  match json.getObjVal? key with
  | .ok (.arr values) => values.toList.filterMap fun
    | .str value => some value
    | _ => none
  | _ => []

def setOf (names : List String) : NameSet :=
  names.foldl (fun set name => set.insert name.toName) {}

def Request.parse (json : Json) : Request where
  nonce := text json "nonce"
  kind := text json "kind"
  name := text json "name"
  header := text json "header"
  statement := text json "statement"
  opening := number json "opening"
  source := text json "source"
  heartbeats := number json "heartbeats"
  wallMs := number json "wall_ms"
  outputBytes := number json "output_bytes"

def Settings.parse (json : Json) : Settings :=
  let policy := (json.getObjVal? "policy").toOption.getD .null
  let kinds := strings policy "kinds"
  let words := setOf (strings policy "words")
  let raised := strings policy "raised"
  let reserved := strings policy "reserved"
  let constants := setOf (strings policy "constants")
  let configuration := strings policy "configuration"
  let data := {
    functions := setOf (strings policy "functions")
    growing := setOf (strings policy "growing")
    largest := number policy "largest"
    unlike := setOf (strings policy "unlike")
    nodes := number policy "nodes" }
  { searchPath := (strings json "search_path").map fun path => ⟨path⟩
    watchdog := (json.getObjVal? "watchdog").toOption == some (.bool true)
    proofs := {
      options := strings policy "options"
      kinds := setOf (kinds ++ strings policy "proof_kinds")
      raised, words, reserved, constants, configuration, data
      commands := none
      attributes := {} }
    files := {
      options := strings policy "options" ++ strings policy "file_options"
      kinds := setOf kinds
      raised, words, reserved, constants, configuration, data
      commands := some (setOf (strings policy "commands"))
      attributes := setOf (strings policy "attributes") } }

def quoted (component : String) : String :=
  let isPlain := component.toList.all fun char => !" .,«»[]\n\t".toList.contains char
  if isPlain then component else "«" ++ component ++ "»"

/-- A name as text, such that no invented name reads like one of the library's: a
component with a dot or a comma keeps its guillemets. -/
def nameText : Name → String
  | .anonymous => ""
  | .str .anonymous last => quoted last
  | .str parent last => nameText parent ++ "." ++ quoted last
  | .num parent last => nameText parent ++ "." ++ toString last

def send (json : Json) : IO Unit := do
  let out ← IO.getStdout
  out.putStrLn json.compress
  out.flush

/-! ## What a parsed proof or file may contain -/

partial def firstToken : Syntax → String
  | .node _ _ children => if h : 0 < children.size then firstToken children[0] else ""
  | .atom _ value => value
  | .ident _ _ name _ => nameText name
  | .missing => ""

/-- Whether a token is a number of four digits or more. -/
def isThousands (token : String) : Bool :=
  match token.toList with
  | [] => false
  | first :: rest => first != '0' && rest.length ≥ 3 && (first :: rest).all Char.isDigit

def Policy.allowsOption (policy : Policy) (name : String) : Bool :=
  policy.options.any fun allowed =>
    name == allowed || (allowed.endsWith "." && name.startsWith allowed)

def isConfiguration (kind : Name) : Bool :=
  ((nameText kind).splitOn "onfig").length > 1

/-- Whether a node may be part of a configuration. -/
def Policy.isOfConfigurations (policy : Policy) (kind : Name) : Bool :=
  let text := kind.toString false
  (text.splitOn "onfig").length > 1 || (text.splitOn "structInst").length > 1
    || policy.configuration.contains text

/-- An identifier in a configuration that is neither a key nor a known constant. A
configuration is compiled and run. -/
def Policy.isFree (policy : Policy) (kind : Name) (index : Nat) (name : Name) : Bool :=
  let last := kind.getString!
  let isKey := ["posConfigItem", "negConfigItem", "structInstLVal", "dotIdent"].contains last
    || (last == "valConfigItem" && index == 1)
  -- Parentheses come with a nameless identifier.
  !isKey && !name.isAnonymous && !policy.constants.contains name

/-- Whether a part of a name may not occur, alone or in a longer one. -/
def Policy.refusesPart (policy : Policy) : Name → Bool
  | .anonymous => false
  | .str rest part => policy.words.contains (.mkSimple part)
    || policy.reserved.any (fun start => part.startsWith start) || policy.refusesPart rest
  | .num rest _ => policy.refusesPart rest

def Policy.refuseIdentifier (policy : Policy) (name kind : Name) (index : Nat)
    (isOption inConfiguration : Bool) : String :=
  if isOption then
    if policy.allowsOption (nameText name) then "" else s!"set_option {nameText name}"
  else if policy.refusesPart name then nameText name
  else if inConfiguration && policy.isFree kind index name then
    s!"{nameText name} in a configuration"
  else ""

def Policy.refuseKind (policy : Policy) (stx : Syntax) (inConfiguration : Bool) : String :=
  let kind := stx.getKind
  if policy.kinds.contains kind then nameText kind
  else if inConfiguration && !policy.isOfConfigurations kind then
    s!"{kind.toString false} in a configuration"
  else if kind == `Lean.Parser.Term.attrInstance then
    let name := firstToken stx[1]
    if policy.attributes.contains name.toName then "" else s!"the attribute {name}"
  else ""

mutual

/-- Why a syntax tree may not be elaborated, empty when it may. -/
partial def Policy.walk (policy : Policy) (inConfiguration : Bool) (stx : Syntax) : String :=
  match stx with
  | .node _ kind children =>
    let inside := inConfiguration || isConfiguration kind
    let refused := policy.refuseKind stx inside
    if refused != "" then refused else policy.walkAll inside kind 0 "" children.toList
  | _ => ""

partial def Policy.walkAll (policy : Policy) (inConfiguration : Bool) (kind : Name)
    (index : Nat) (before : String) : List Syntax → String
  | [] => ""
  | child :: rest =>
    let isOption := before == "set_option"
    let isRaised := policy.raised.contains before
    let value := if isRaised then firstToken child else ""
    let refused := if value != "" && !isThousands value then "a set_option to less than 1000"
    else match child with
      | .ident _ _ name _ =>
        policy.refuseIdentifier name kind index isOption inConfiguration
      | _ => policy.walk inConfiguration child
    let before := match child with
      | .atom _ value => value
      | .ident _ _ name _ => if isOption then nameText name else ""
      -- An empty node lies between an option and its value.
      | _ => if isRaised && value == "" then before else ""
    if refused != "" then refused
    else policy.walkAll inConfiguration kind (index + 1) before rest

end

/-- A proof is the value of a declaration; what is before it is trusted. -/
def Policy.refuseProof (policy : Policy) (value : List Syntax) : String :=
  policy.walkAll false `null 0 "" value

/-- Commands come alone, before and after `in`, and inside `mutual`. -/
partial def Policy.refuseCommand (policy : Policy) (stx : Syntax) : String :=
  match stx with
  | .node _ kind children =>
    if !(policy.commands.getD {}).contains kind then
      s!"the command {firstToken stx}"
    else
      let inner :=
        if kind == `Lean.Parser.Command.in then [stx[0], stx[2]]
        else if kind == `Lean.Parser.Command.mutual then stx[1].getArgs.toList
        else []
      match (inner.map policy.refuseCommand).find? (· != "") with
      | some refused => refused
      | none => policy.walkAll false kind 0 "" children.toList
  | _ => ""

/-! ## Where a statement ends -/

/-- Where a token begins, in bytes; none where that is not known. -/
def placeOf : SourceInfo → Option Nat
  | .original _ place _ _ | .synthetic place _ _ => some place.byteIdx
  | .none => none

mutual

/-- The last token of a tree; none where it has none. -/
partial def lastToken (stx : Syntax) : Option SourceInfo :=
  match stx with
  | .node _ _ children => lastOf children.toList
  | .atom info _ | .ident info .. => some info
  | .missing => none

partial def lastOf : List Syntax → Option SourceInfo
  | [] => none
  | first :: rest => match lastOf rest with
    | some found => some found
    | none => lastToken first

end

/-- Whether a node holds a whole command, or parts of one in a row. -/
def isGroup (kind : Name) : Bool :=
  kind == `Lean.Parser.Command.in || kind == `group || kind == `null

/-- The trees behind our own `:=`, which begins at byte `opening` of the text; none where
the parser does not take it for that of the declaration: then what is before it is more or
less than a statement. A declaration by a macro of the header has its `:=` at the top.
`depth` counts the nodes above that are no groups. -/
partial def ownValue (opening depth : Nat) (stx : Syntax) : Option (List Syntax) :=
  let kind := stx.getKind
  let depth := if isGroup kind then depth else depth + 1
  let children := stx.getArgs.toList
  match behind children with
  | some value =>
    if kind == `Lean.Parser.Command.declValSimple || depth ≤ 1 then some value else none
  | none => match children.reverse.find? fun child => (lastToken child).isSome with
    | some last => ownValue opening depth last
    | none => none
where
  behind : List Syntax → Option (List Syntax)
    | [] => none
    | .atom info ":=" :: rest =>
      if placeOf info == some opening then some rest else behind rest
    | _ :: rest => behind rest

/-- Whether a value is no more than the one token behind our own `:=`. -/
def isBare (opening : Nat) (value : List Syntax) : Bool :=
  match (lastOf value).bind placeOf with
  | some place => place ≤ opening + ":= ".length
  | none => true

/-- Whether a command is the end of the text. For Lean, `#exit` and an `import` behind
another command are ends as well, and what follows them is never read. -/
def isEnd (stx : Syntax) : Bool := stx.isOfKind `Lean.Parser.Command.eoi

/-! ## Elaboration -/

/-- A source text, how far it was parsed, and what is known by then. -/
structure Cursor where
  input : Parser.InputContext
  parser : Parser.ModuleParserState
  messages : MessageLog
  imports : Array Import
  /-- Whether the text begins without `import`, `module` and `prelude`. -/
  isHeaderless : Bool

def Cursor.open (source : String) : IO Cursor := do
  let input := Parser.mkInputContext source "<input>"
  let (header, parser, messages) ← Parser.parseHeader input
  return {
    input, parser, messages, imports := headerToImports header
    isHeaderless := (lastToken header).isNone }

def Cursor.parse (cursor : Cursor) (state : Command.State) :
    Syntax × MessageLog × Cursor :=
  let scope := state.scopes.head!
  let context : Parser.ParserModuleContext := {
    env := state.env, options := scope.opts
    currNamespace := scope.currNamespace, openDecls := scope.openDecls }
  let (stx, parser, messages) :=
    Parser.parseCommand cursor.input context cursor.parser {}
  (stx, messages, { cursor with parser })

/-- A state with the environment, scopes and options of another, and no messages. -/
def continueState (state : Command.State) : Command.State :=
  let options := state.scopes.head!.opts
  { Command.mkState state.env {} options with scopes := state.scopes }

partial def wait (token : IO.CancelToken) (done : IO.Ref Bool) (deadline : Nat) :
    IO Unit := do
  if ← done.get then return
  if (← IO.monoMsNow) ≥ deadline then token.set
  else
    IO.sleep 10
    wait token done deadline

/-- Elaborates a parsed command; also whether it was cancelled at the deadline and
whether it was interrupted for another reason. -/
def elaborate (settings : Settings) (cursor : Cursor) (stx : Syntax)
    (state : Command.State) (deadline : Nat) : IO (Command.State × Bool × Bool) := do
  let ref ← IO.mkRef state
  let token ← IO.CancelToken.new
  let done ← IO.mkRef false
  if settings.watchdog then
    discard <| IO.asTask (wait token done deadline) .dedicated
  let context : Command.Context := {
    fileName := "<input>", fileMap := cursor.input.fileMap, cmdPos := cursor.parser.pos
    snap? := none, cancelTk? := some token }
  let result ← EIO.toBaseIO (Command.elabCommandTopLevel stx context ref)
  done.set true
  let interrupted := match result with
    | .ok _ => false
    | .error _ => true
  let timedOut := (← token.isSet) || (← IO.monoMsNow) > deadline
  return (← ref.get, timedOut, interrupted)

/-- Whether Lean made the name: a submission has no name with a part that begins with
`_tmp` or `_auto` (`Policy.reserved`), and no text spells a part that is a number. -/
def isLeansOwn : Name → Bool
  | name@(.num _ _) => name.getRoot == `_tmp
  | .str _ last => last == "_autoParam" || last.startsWith "_auto_"
  | .anonymous => false

/-- Whether a constant takes a part of a structure, not of an instance of a class. -/
def isProjection (env : Environment) (name : Name) : Bool :=
  match env.getProjectionFnInfo? name with
  | some info => !info.fromClass
  | none => false

/-- Whether a function of this type has all its arguments. -/
def isComplete : Expr → List Expr → Bool
  | .forallE _ _ body _, _ :: rest => isComplete body rest
  | .forallE .., [] => false
  | _, _ => true

/-- The arguments of an application, and those after them. -/
def argumentsOf : Expr → List Expr → List Expr
  | .app function argument, after => argumentsOf function (argument :: after)
  | _, after => after

def isInductive (env : Environment) : Expr → Bool
  | .const name _ => match env.find? name with
    | some (.inductInfo _) => true
    | _ => false
  | _ => false

/-- Whether a constant is data, as applied to its arguments: a type, a constructor, one of
the functions; and outside the arguments of one whose result grows, the projection of a
structure or a value whose type is an inductive type by itself, such as `Nat`. -/
def Data.allows (data : Data) (known : Environment) (name : Name) (arguments : List Expr)
    (inGrowing : Bool) : Bool :=
  match known.find? name with
  | some info =>
    if data.unlike.contains name.getRoot then false
    else if data.growing.contains name then !inGrowing && isComplete info.type arguments
    else data.functions.contains name || match info with
      | .inductInfo _ | .ctorInfo _ => true
      | _ => !inGrowing && (isProjection known name || isInductive known info.type)
  | none => false

/-- Whether a value is plain data, so that making it costs little and does nothing else:
what is left of the number of parts it may have. `known` is the environment before the
submission: of what that declares, nothing is data. -/
partial def Data.rest (data : Data) (known : Environment) (inGrowing : Bool) (left : Nat)
    (expr : Expr) : Option Nat :=
  if left == 0 then none
  else match expr with
    | .lit (.natVal value) =>
      if inGrowing && value > data.largest then none else some (left - 1)
    | .lit (.strVal _) => some (left - 1)
    | .bvar _ => if inGrowing then none else some (left - 1)
    | .letE _ type value body _ =>
      if inGrowing then none else all false (left - 1) [type, value, body]
    | .const .. | .app .. =>
      match expr.getAppFn with
      | .const name _ =>
        let arguments := argumentsOf expr []
        if data.allows known name arguments inGrowing then
          all (inGrowing || data.growing.contains name) (left - 1) arguments
        else none
      | _ => none
    | _ => none
where
  all (inGrowing : Bool) (left : Nat) : List Expr → Option Nat
    | [] => some left
    | first :: others => match data.rest known inGrowing left first with
      | some left => all inGrowing left others
      | none => none

/-- Whether a definition is plain data. A coercion or an instance of the submission would
bring its own terms into it. -/
def Data.has (data : Data) (known env : Environment) (name : Name) : Bool :=
  match env.find? name with
  | some (.defnInfo { value, .. }) => (data.rest known false data.nodes value).isSome
  | _ => false

/-- Elaborates what is not trusted. Tactics compile and run their configuration and the
tactic blocks of automatic parameters. Where these are plain data they are compiled, and
nothing else is: what has no code cannot be run, whatever asks for it. `known` is the
environment before all of the submission. -/
def elaborateUntrusted (settings : Settings) (known : Environment) (cursor : Cursor)
    (stx : Syntax) (state : Command.State) (deadline : Nat) :
    IO (Command.State × Bool × Bool) := do
  let compile ← compileDeclsRef.get
  compileDeclsRef.set fun names => do
    let env ← getEnv
    let mayCompile := names.toList.all fun name =>
      isLeansOwn name && settings.proofs.data.has known env name
    if mayCompile then compile names
  let result ← elaborate settings cursor stx state deadline
  compileDeclsRef.set compile
  return result

/-! ## Messages -/

def severityName : MessageSeverity → String
  | .information => "information"
  | .warning => "warning"
  | .error => "error"

def optional (position : Option Position) (field : Position → Nat) : Json :=
  match position with
  | some position => toJson (field position)
  | none => .null

/-- The longest prefix within a number of UTF-8 bytes. -/
partial def cut (text : String) (bytes : Nat) : String :=
  if text.utf8ByteSize ≤ bytes then text else go text.toList bytes ""
where
  go : List Char → Nat → String → String
    | [], _, result => result
    | char :: rest, left, result =>
      if char.utf8Size ≤ left then go rest (left - char.utf8Size) (result.push char)
      else result

def renderOne (message : Message) (bytes : Nat) : IO (Json × Nat) := do
  let full ← message.data.toString
  let shown := cut full bytes
  let kind := message.data.kind
  return (Json.mkObj [
    ("severity", severityName message.severity),
    ("line", toJson message.pos.line),
    ("column", toJson message.pos.column),
    ("end_line", optional message.endPos (·.line)),
    ("end_column", optional message.endPos (·.column)),
    ("kind", if kind.isAnonymous then "" else nameText kind),
    ("text", shown)], shown.utf8ByteSize)

/-- The messages until the byte limit is used up, and those after it. -/
partial def renderList (bytes : Nat) : List Message → IO (List Json × List Message)
  | [] => return ([], [])
  | message :: rest => do
    if bytes == 0 then return ([], message :: rest)
    let (json, used) ← renderOne message bytes
    let (shown, missing) ← renderList (bytes - used) rest
    return (json :: shown, missing)

/-- Messages, errors first and then warnings, until the byte limit is used up, and
whether an error or a warning is not among them. -/
def render (log : MessageLog) (bytes : Nat) : IO (List Json × Bool) := do
  let messages := log.toList.filter fun message =>
    !message.isSilent || message.severity matches .error
  let ofSeverity := fun name =>
    messages.filter fun message => severityName message.severity == name
  let ordered := ofSeverity "error" ++ ofSeverity "warning" ++ ofSeverity "information"
  let (shown, missing) ← renderList bytes ordered
  let important := missing.filter fun message => !(message.severity matches .information)
  return (shown, !important.isEmpty)

/-! ## Trusted source -/

/-- What is wrong with a header or a statement. -/
structure Fault where
  reason : String
  messages : List Json := []
  inHeader : Bool := false

abbrev Trusted := ExceptT Fault IO

def trustedMs := 60000
def trustedBytes := 4096

def requireNoErrors (log : MessageLog) (what : String) : Trusted Unit := do
  if !log.hasErrors then return
  let (messages, _) ← render log trustedBytes
  let reason := match messages with
    | first :: _ => text first "text"
    | [] => "unknown"
  throw { reason := s!"{what} does not elaborate: {reason}", messages }

def elaborateTrusted (settings : Settings) (cursor : Cursor) (stx : Syntax)
    (state : Command.State) (what : String) : Trusted Command.State := do
  let deadline := (← IO.monoMsNow) + trustedMs
  let (next, timedOut, interrupted) ← elaborate settings cursor stx state deadline
  if timedOut || interrupted then
    throw { reason := s!"{what} takes longer than a minute" }
  requireNoErrors next.messages what
  return next

/-- Pinned for every elaboration. Auto-bound names would turn a misspelt type into a
variable and change what is proved; linters only cost time. -/
def pinned (heartbeats : Nat) : Options :=
  let options : Options := {}
  let options := options.setBool `autoImplicit false
  let options := options.setBool `relaxedAutoImplicit false
  let options := options.setBool `linter.all false
  options.setNat `maxHeartbeats heartbeats

def defaultHeartbeats := 200000

partial def headerCommands (settings : Settings) (cursor : Cursor)
    (state : Command.State) : Trusted Command.State := do
  let (stx, messages, next) := cursor.parse state
  requireNoErrors messages "the header"
  if isEnd stx then return state
  let state ← elaborateTrusted settings cursor stx state "the header"
  headerCommands settings next (continueState state)

def importEnvironment (imports : Array Import) : IO Environment :=
  importModules imports {} (trustLevel := 0) (leakEnv := true) (loadExts := true)

def elaborateHeader (settings : Settings) (source : String) : Trusted Command.State := do
  let cursor ← Cursor.open source
  requireNoErrors cursor.messages "the header"
  match ← EIO.toBaseIO (importEnvironment cursor.imports) with
  | .error error => throw { reason := s!"the header does not elaborate: {error}" }
  | .ok env =>
    headerCommands settings cursor (Command.mkState env {} (pinned defaultHeartbeats))

def kernelFind? (env : Environment) (name : Name) : Option ConstantInfo :=
  env.toKernelEnv.find? name

/-- A trusted theorem, and the environment in which its statement means what it does. -/
structure Statement where
  theorem_ : ConstantInfo
  env : Environment

def Statement.name (statement : Statement) : Name := statement.theorem_.name

/-- What is declared under this spelling in the namespace that the header leaves open. A
name without its «» is one part where Lean reads it as none. -/
def fullName (header : Command.State) (spelling : String) : Name :=
  let name := spelling.toName
  let name := if name.isAnonymous then .mkSimple spelling else name
  if name.getRoot == `_root_ then name.replacePrefix `_root_ .anonymous
  else header.scopes.head!.currNamespace ++ name

def elaborateStatement (settings : Settings) (header : Command.State)
    (request : Request) : Trusted Statement := do
  let cursor ← Cursor.open request.statement
  requireNoErrors cursor.messages "the statement"
  if !cursor.isHeaderless then
    throw { reason := "the statement begins with `import`, `module` or `prelude`, which \
      belong to the header" }
  let state := continueState header
  let (stx, messages, next) := cursor.parse state
  requireNoErrors messages "the statement"
  let (rest, _, _) := next.parse state
  if !isEnd rest then
    throw { reason := "the statement holds more than one command" }
  match ownValue request.opening 0 stx with
  | some value =>
    if !isBare request.opening value then throw carriesProof
  | none => throw carriesProof
  let result ← elaborateTrusted settings cursor stx state "the statement"
  let name := fullName header request.name
  match kernelFind? header.env name, kernelFind? result.env name with
  | none, some (.thmInfo value) =>
    return { theorem_ := .thmInfo value, env := result.env }
  | _, _ => throw { reason :=
      s!"the statement declares no theorem {request.name}; spell the name as it does, \
        and leave `private` out" }
where
  carriesProof : Fault := { reason :=
    "the statement carries a proof, or declares no theorem; it must end before `:=`" }

/-! ## The kernel's environment -/

/-- Axioms of a constant. Where a library's files hold exported data only, its theorems
look like axioms; Lean records what they were. -/
def axiomsOf (env : Environment) (name : Name) : List Name :=
  let (_, state) := ((CollectAxioms.collect name).run env).run {}
  state.axioms.toList.filter fun found =>
    match getOriginalConstKind? env found with
    | some .axiom | none => true
    | _ => false

/-- Everything a constant of the result mentions. -/
def mentions (info : ConstantInfo) : List Name :=
  let inType := info.type.getUsedConstants.toList
  let inValue := match info.value? (allowOpaque := true) with
    | some value => value.getUsedConstants.toList
    | none => []
  let related := match info with
    | .inductInfo value => value.all ++ value.ctors
    | .ctorInfo value => [value.induct]
    | .recInfo value => value.all
    | _ => []
  inType ++ inValue ++ related

/-- What the kernel was told when it made a constant; none for what comes with another. -/
def declarationOf (env : Environment) : ConstantInfo → Option Declaration
  | .axiomInfo value => some (.axiomDecl value)
  | .defnInfo value => some (.defnDecl value)
  | .thmInfo value => some (.thmDecl value)
  | .opaqueInfo value => some (.opaqueDecl value)
  | .inductInfo value =>
    let types := value.all.filterMap fun name => match kernelFind? env name with
      | some (.inductInfo each) =>
        let constructors := each.ctors.filterMap fun constructor =>
          (kernelFind? env constructor).map fun info =>
            ({ name := constructor, type := info.type } : Constructor)
        some ({ name, type := each.type, ctors := constructors } : InductiveType)
      | _ => none
    some (.inductDecl value.levelParams value.numParams types value.isUnsafe)
  | _ => none

/-- Whether a constructor or recursor is what the kernel derives. -/
def sameDerived : ConstantInfo → ConstantInfo → Bool
  | .ctorInfo left, .ctorInfo right => left.type == right.type
  | .recInfo left, .recInfo right => left.type == right.type
    && left.k == right.k
    && left.rules.map (fun rule => (rule.ctor, rule.nfields, rule.rhs))
      == right.rules.map (fun rule => (rule.ctor, rule.nfields, rule.rhs))
  | _, _ => false

structure Recheck where
  kernel : Kernel.Environment
  /-- Constants that were looked at. -/
  visited : NameSet := {}
  /-- Those that come with another; compared when all is added. -/
  derived : List ConstantInfo := []

mutual

/-- Adds a constant, after all it mentions, to an environment of the kernel's own. A
circle ends in a constant that the kernel does not know. -/
partial def recheck (result : Environment) (state : Recheck) (name : Name) :
    Except String Recheck := do
  if state.visited.contains name || (state.kernel.find? name).isSome then return state
  let some info := kernelFind? result name | throw s!"{nameText name} is missing"
  let state := { state with visited := state.visited.insert name }
  let state ← recheckAll result state (mentions info)
  match declarationOf result info with
  | none => return { state with derived := info :: state.derived }
  | some declaration =>
    if (state.kernel.find? name).isSome then return state
    match state.kernel.addDecl {} declaration with
    | .ok kernel => return { state with kernel }
    | .error _ => throw s!"the kernel refuses {nameText name} on a second look"

partial def recheckAll (result : Environment) (state : Recheck) :
    List Name → Except String Recheck
  | [] => return state
  | name :: rest => do recheckAll result (← recheck result state name) rest

end

def isDerived (kernel : Kernel.Environment) (info : ConstantInfo) : Bool :=
  match kernel.find? info.name with
  | some made => sameDerived made info
  | none => false

/-- Checks a theorem and all it rests on a second time: on the header's environment and
with the kernel only. `debug.skipKernelTC` and tricks with the environment have no say. -/
def secondLook (header result : Environment) (name : Name) : Option String :=
  match recheck result { kernel := header.toKernelEnv } name with
  | .error reason => some reason
  | .ok state =>
    match state.derived.find? fun info => !isDerived state.kernel info with
    | some info => some s!"{nameText info.name} is not what the kernel derives"
    | none => none

/-- An expression with the definitions that the header lacks unfolded. A `match` in a
statement becomes a definition, and Lean uses an equal one again that a submission has
made before, under another name. -/
partial def unfold (header env : Environment) (expr : Expr) : Except String Expr :=
  go expr.getUsedConstants.toList expr
where
  go : List Name → Expr → Except String Expr
    | [], expr => return expr
    | name :: rest, expr => do
      if (kernelFind? header name).isSome then go rest expr
      else
        let some info := kernelFind? env name | throw s!"{nameText name} is unknown"
        let some value := valueOf info | throw s!"{nameText name} is no definition"
        let value ← unfold header env value
        go rest (expr.replace fun
          | .const used levels =>
            if used == name then
              some (value.instantiateLevelParams info.levelParams levels)
            else none
          | _ => none)
  valueOf : ConstantInfo → Option Expr
    | .defnInfo value => some value.value
    | .thmInfo value => some value.value
    | _ => none

/-- Whether a theorem has the trusted one's universe names and type. -/
def matchesStatement (header result : Environment) (trusted : Statement)
    (found : ConstantInfo) : Bool :=
  found.levelParams == trusted.theorem_.levelParams
    && match unfold header trusted.env trusted.theorem_.type,
        unfold header result found.type with
      | .ok wanted, .ok type => type == wanted
      | _, _ => false

def targetJson (header result : Environment) (trusted : Statement) : Json :=
  match kernelFind? result trusted.name with
  | none => .null
  | some found =>
    let isTheorem := match found with
      | .thmInfo _ => true
      | _ => false
    let axioms := (axiomsOf result trusted.name).map fun name => toJson (nameText name)
    Json.mkObj [
      ("is_theorem", isTheorem),
      ("matches_statement", matchesStatement header result trusted found),
      ("axioms", .arr axioms.toArray)]

def errorMessage (text : String) : Json := Json.mkObj [
  ("severity", "error"), ("line", (1 : Nat)), ("column", (0 : Nat)), ("text", text)]

/-! ## Untrusted submissions -/

structure Report where
  messages : List Json := []
  /-- Whether an error or a warning is not among the messages. -/
  leftOut : Bool := false
  hasErrors : Bool := false
  timedOut : Bool := false
  refused : String := ""
  noProof : Bool := false
  leftProof : Bool := false
  target : Json := .null

/-- The facts about the target, and a second look where there is something to accept. -/
def Report.conclude (report : Report) (header result : Environment)
    (trusted : Statement) : Report :=
  let report := { report with target := targetJson header result trusted }
  if report.hasErrors || report.timedOut || report.target.isNull then report
  else match secondLook header result trusted.name with
    | none => report
    | some reason =>
      { report with hasErrors := true, messages := errorMessage reason :: report.messages }

def checkProof (settings : Settings) (request : Request) (header : Command.State)
    (trusted : Statement) (deadline : Nat) : IO Report := do
  let cursor ← Cursor.open request.source
  let state := continueState header
  let (stx, messages, next) := cursor.parse state
  let value := ownValue request.opening 0 stx
  let noProof := match value with
    | some value => isBare request.opening value
    | none => !messages.hasErrors
  if messages.hasErrors then
    let (messages, leftOut) ← render messages request.outputBytes
    return { hasErrors := true, messages, leftOut, noProof }
  if noProof then return { noProof }
  let refused := settings.proofs.refuseProof (value.getD [])
  if refused != "" then return { refused }
  -- A proof is one command. A stray token after it is an error like any other and does
  -- not hide what Lean says about the proof.
  let (rest, stray, _) := next.parse state
  if !isEnd rest && !stray.hasErrors then
    return { leftProof := true }
  let (result, timedOut, interrupted) ←
    elaborateUntrusted settings header.env cursor stx state deadline
  let log := result.messages
  let (shown, leftOut) ← render log request.outputBytes
  let (strays, more) ← render stray request.outputBytes
  let report : Report := {
    hasErrors := log.hasErrors || stray.hasErrors || interrupted
    timedOut
    messages := shown ++ strays
    leftOut := leftOut || more }
  return report.conclude header.env result.env trusted

structure Progress where
  state : Command.State
  messages : MessageLog := {}
  interrupted : Bool := false
  timedOut : Bool := false
  refused : String := ""

partial def commands (settings : Settings) (known : Environment) (cursor : Cursor)
    (deadline : Nat) (progress : Progress) : IO Progress := do
  let (stx, messages, next) := cursor.parse progress.state
  let progress := { progress with messages := progress.messages ++ messages }
  let refused := settings.files.refuseCommand stx
  if refused != "" then return { progress with refused }
  if isEnd stx then return progress
  let (state, timedOut, interrupted) ←
    elaborateUntrusted settings known cursor stx progress.state deadline
  let progress := { progress with
    state := { state with messages := {} }
    messages := progress.messages ++ state.messages
    interrupted := progress.interrupted || interrupted
    timedOut }
  if timedOut then return progress
  commands settings known next deadline progress

def isLoaded (env : Environment) (imported : Import) : Bool :=
  (env.getModuleIdx? imported.module).isSome

/-- All commands of a file: on the problem's header, or on the file's own imports where
there is no problem. -/
def checkFile (settings : Settings) (request : Request)
    (problem : Option (Command.State × Statement)) (deadline : Nat) : IO Report := do
  let cursor ← Cursor.open request.source
  if cursor.messages.hasErrors then
    let (messages, leftOut) ← render cursor.messages request.outputBytes
    return { hasErrors := true, messages, leftOut }
  let start ← match problem with
    | some (header, _) =>
      let missing := cursor.imports.toList.filter fun imported =>
        !isLoaded header.env imported
      if !missing.isEmpty then
        let names := ", ".intercalate (missing.map fun imported => nameText imported.module)
        let message := errorMessage
          s!"the file imports {names}, which the problem's header does not load"
        return { hasErrors := true, messages := [message] }
      pure (continueState header)
    | none =>
      match ← EIO.toBaseIO (importEnvironment cursor.imports) with
      | .ok env => pure (Command.mkState env {} {})
      | .error error =>
        return { hasErrors := true, messages := [errorMessage (toString error)] }
  let result ← commands settings start.env cursor deadline { state := start }
  let log := result.messages
  let (messages, leftOut) ← render log request.outputBytes
  let report : Report := {
    hasErrors := log.hasErrors || result.interrupted
    timedOut := result.timedOut
    refused := result.refused
    messages
    leftOut }
  match problem with
  | some (header, trusted) => return report.conclude header.env result.state.env trusted
  | none => return report

/-! ## The loop -/

/-- Headers and statements that were elaborated, faults included. -/
structure Kept where
  headers : List (String × Except Fault Command.State) := []
  statements : List (String × Except Fault Statement) := []

def headersKept := 8
def statementsKept := 256

def first : Nat → List α → List α
  | 0, _ | _, [] => []
  | count + 1, entry :: rest => entry :: first count rest

def remember (kept : IO.Ref Kept) (key : String) (make : IO α)
    (find : Kept → List (String × α)) (store : Kept → List (String × α) → Kept)
    (size : Nat) : IO α := do
  let entries := find (← kept.get)
  let found := entries.find? fun (name, _) => name == key
  let value ← match found with
    | some (_, value) => pure value
    | none => make
  let others := entries.filter fun (name, _) => name != key
  kept.modify fun old => store old ((key, value) :: first (size - 1) others)
  return value

def header (settings : Settings) (kept : IO.Ref Kept) (source : String) :
    IO (Except Fault Command.State) :=
  remember kept source (elaborateHeader settings source).run
    (·.headers) (fun old headers => { old with headers }) headersKept

def limitHeartbeats (state : Command.State) (heartbeats : Nat) : Command.State :=
  match state.scopes with
  | scope :: rest =>
    let opts := scope.opts.setNat `maxHeartbeats heartbeats
    { state with scopes := { scope with opts } :: rest }
  | [] => state

/-- The header's state for proofs, and the statement's own constant. -/
def prepare (settings : Settings) (kept : IO.Ref Kept) (request : Request) :
    IO (Except Fault (Command.State × Statement)) := do
  match ← header settings kept request.header with
  | .error fault => return .error { fault with inHeader := true }
  | .ok trusted =>
    -- The proof's limit must not decide whether the statement elaborates; the default
    -- leaves a header's own setting in force.
    let state := if request.heartbeats == defaultHeartbeats then trusted
      else limitHeartbeats trusted request.heartbeats
    let key := request.header ++ "\x00" ++ request.statement ++ "\x00" ++ request.name
    let constant ← remember kept key (elaborateStatement settings trusted request).run
      (·.statements) (fun old statements => { old with statements }) statementsKept
    return constant.map fun constant => (state, constant)

def reportJson (request : Request) (report : Report) (ms : Nat) : Json := Json.mkObj [
  ("nonce", request.nonce),
  ("messages", .arr report.messages.toArray),
  ("left_out", report.leftOut),
  ("has_errors", report.hasErrors),
  ("timed_out", report.timedOut),
  ("refused", report.refused),
  ("no_proof", report.noProof),
  ("left_proof", report.leftProof),
  ("target", report.target),
  ("seconds", toJson (ms.toFloat / 1000))]

/-- Runs what counts against the proof's own time. -/
def timed (request : Request) (check : Nat → IO Report) : IO Unit := do
  send (Json.mkObj [("started", request.nonce)])
  let begin ← IO.monoMsNow
  let report ← check (begin + request.wallMs)
  send (reportJson request report ((← IO.monoMsNow) - begin))

def answer (settings : Settings) (kept : IO.Ref Kept) (request : Request) : IO Unit := do
  if request.kind == "run" then
    timed request (checkFile settings request none)
  else match ← prepare settings kept request with
    | .error fault =>
      send (Json.mkObj [
        ("nonce", request.nonce), ("statement_error", fault.reason),
        ("in_header", fault.inHeader), ("messages", .arr fault.messages.toArray)])
    | .ok (state, constant) =>
      match request.kind with
      | "proof" => timed request (checkProof settings request state constant)
      | "file" => timed request (checkFile settings request (some (state, constant)))
      | _ => send (Json.mkObj [("nonce", request.nonce)])

partial def serve (settings : Settings) (kept : IO.Ref Kept) : IO Unit := do
  let line ← (← IO.getStdin).getLine
  if line.isEmpty then return
  match Json.parse line with
  | .error error => throw (IO.userError s!"a request is not JSON: {error}")
  | .ok json =>
    let request := Request.parse json
    try answer settings kept request
    catch error =>
      send (Json.mkObj [("nonce", request.nonce), ("crash", toString error),
        ("out_of_memory", false)])
    serve settings kept

end Fdjax

unsafe def main (arguments : List String) : IO UInt32 := do
  match Json.parse (arguments.headD "") with
  | .error error =>
    IO.eprintln s!"checker.lean: expected settings as JSON, got: {error}"
    return 2
  | .ok json =>
    let settings := Fdjax.Settings.parse json
    enableInitializersExecution
    searchPathRef.set settings.searchPath
    Fdjax.send (Json.mkObj [("ready", true), ("version", Lean.versionString)])
    Fdjax.serve settings (← IO.mkRef {})
    return 0
