/-
A checker that lives in a Lean session and answers through messages. It is elaborated
right after the imports, before anything untrusted, and every occurrence of `FDJAX` is
replaced by a random word. Then

  FDJAX "{\"verb\": …, \"nonce\": …, …}"

is a command that logs one message: the nonce, a space, and a JSON object. Untrusted text
is only ever in a string literal, so it cannot reach the session's own text or state:
it is parsed and elaborated here, on a copy of the state that is dropped afterwards.

The code is interpreted, so it leaves loops to compiled functions of the library and
uses plain recursion itself. What has another name or type in another version of Lean
is behind `by first`.
-/
namespace _FDJAX
open Lean Elab Command

/-! ### Versions -/

def isSilent (message : Message) : Bool := by
  first | exact message.isSilent | exact false

def kindOf (message : Message) : Name := by
  first | exact message.kind | exact message.data.kind | exact .anonymous

/-- The constant as the kernel knows it. -/
def kernelFind (env : Environment) (name : Name) : Option ConstantInfo := by
  first | exact env.toKernelEnv.find? name | exact env.find? name

/-- Whether a constant of the library that reads as an axiom is one: files that hold
exported data only show theorems as axioms. -/
def wasAxiom (env : Environment) (name : Name) : Bool := by
  first
  | exact match getOriginalConstKind? env name with
      | some .axiom | none => true
      | some _ => false
  | exact true

def setOption (options : Options) (name : Name) (value : DataValue) : Options := by
  first | exact options.insert name value | exact options.set name value

def inputContext (source : String) : Parser.InputContext := by
  first
  | exact { inputString := source, fileName := "<input>", fileMap := source.toFileMap }
  | exact Parser.mkInputContext source "<input>"

/-- The environment with a declaration that the kernel has checked. -/
def kernelAdd (env : Environment) (declaration : Declaration) : Option Environment := by
  first
  | exact match env.addDeclCore 0 declaration none with
      | .ok env => some env
      | .error _ => none
  | exact match env.addDecl {} declaration with
      | .ok env => some env
      | .error _ => none

/-- Whether Lean made the name: a submission has none with a part that begins with `_tmp`
or `_auto` (`Rules.reserved`), and no text spells a part that is a number. -/
def isLeansOwn (name : Name) : Bool :=
  match name with
  | .num _ _ => name.getRoot == `_tmp
  | .str _ last => last == "_autoParam" || last.startsWith "_auto_"
  | .anonymous => false

/-- What a value that Lean compiles may be made of. -/
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
def allows (data : Data) (known : Environment) (name : Name) (arguments : List Expr)
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
partial def plainRest (data : Data) (known : Environment) (inGrowing : Bool) (left : Nat)
    (expr : Expr) : Option Nat :=
  if left == 0 then none
  else match expr with
    | .lit (.natVal value) =>
      if inGrowing && Nat.blt data.largest value then none else some (left - 1)
    | .lit (.strVal _) => some (left - 1)
    | .bvar _ => if inGrowing then none else some (left - 1)
    | .letE _ type value body _ =>
      if inGrowing then none else all false (left - 1) [type, value, body]
    | .const .. | .app .. =>
      match expr.getAppFn with
      | .const name _ =>
        let arguments := argumentsOf expr []
        if allows data known name arguments inGrowing then
          all (inGrowing || data.growing.contains name) (left - 1) arguments
        else none
      | _ => none
    | _ => none
where
  all (inGrowing : Bool) (left : Nat) : List Expr → Option Nat
    | [] => some left
    | first :: others => match plainRest data known inGrowing left first with
      | some left => all inGrowing left others
      | none => none

/-- Whether all are Lean's own and plain data. A coercion or an instance of the submission
would bring its own terms into one. -/
def mayCompile (data : Data) (known env : Environment) : List Name → Bool
  | [] => true
  | name :: rest => mayCompile data known env rest && isLeansOwn name
    && match env.find? name with
      | some (.defnInfo value) =>
        (plainRest data known false data.nodes value.value).isSome
      | _ => false

/-- Runs what elaborates a submission; the state before is the session's. Tactics compile
and run their configuration and the tactic blocks of automatic parameters. Where these are
plain data they are compiled, and nothing else is: what has no code cannot be run, whatever
asks for it. `none` for a Lean that cannot be told: there, a submission may define nothing
that would be compiled, and no tactic has a configuration. -/
def withoutCode {α : Type} :
    Option (Data → CommandElabM α → CommandElabM α) := by
  first
  | exact some fun data action => do
      let known ← getEnv
      let compile ← compileDeclsRef.get
      compileDeclsRef.set fun names => do
        if mayCompile data known (← getEnv) names.toList then compile names
      try action finally compileDeclsRef.set compile
  | exact none

/-! ### Requests and reports -/

def join {α : Type} : List α → List α → List α
  | [], right => right
  | first :: rest, right => first :: join rest right

def text (json : Json) (key : String) : String :=
  match json.getObjVal? key with
  | .ok (.str value) => value
  | _ => ""

def number (json : Json) (key : String) : Nat :=
  match json.getObjVal? key with
  | .ok value => value.getNat?.toOption.getD 0
  | _ => 0

def texts (json : Json) (key : String) : List String :=
  match json.getObjVal? key with
  | .ok (.arr values) => go values.toList
  | _ => []
where
  go : List Json → List String
    | .str value :: rest => value :: go rest
    | _ :: rest => go rest
    | [] => []

/-- Distinct names give distinct texts; plain ones read as usual. -/
partial def nameText : Name → String
  | .anonymous => ""
  | .str prefix? part => join prefix? (if plain part.toList then part else s!"«{part}»")
  | .num prefix? part => join prefix? (toString part)
where
  join (prefix? : Name) (part : String) : String :=
    if prefix?.isAnonymous then part else s!"{nameText prefix?}.{part}"
  plain : List Char → Bool
    | [] => true
    | c :: rest => c != '.' && c != '«' && c != '»' && !c.isWhitespace && plain rest

def strings (values : List Json) : Json := .arr values.toArray

/-! ### Messages -/

def severityText : MessageSeverity → String
  | .error => "error"
  | .warning => "warning"
  | .information => "information"

def position (line column : String) (pos : Position) : List (String × Json) :=
  [(line, .num pos.line), (column, .num pos.column)]

def isShown (severity : MessageSeverity) (message : Message) : Bool :=
  match severity, message.severity with
  | .error, .error => true
  | .warning, .warning | .information, .information => !isSilent message
  | _, _ => false

/-- The messages of one severity until `left` bytes are used up: what is left then, and
whether some are missing. -/
def renderSeverity (severity : MessageSeverity) (left : Nat) :
    List Message → IO (Nat × Bool × List Json)
  | [] => return (left, false, [])
  | message :: rest => do
    unless isShown severity message do
      return ← renderSeverity severity left rest
    if left == 0 then return (0, true, [])
    let data ← message.data.toString
    let span := join (position "line" "column" message.pos) (match message.endPos with
      | some pos => position "end_line" "end_column" pos
      | none => [])
    let fields := ("severity", Json.str (severityText severity))
      :: ("kind", .str (nameText (kindOf message))) :: ("text", .str data) :: span
    let (left, isCut, shown) ← renderSeverity severity (left - data.utf8ByteSize) rest
    return (left, isCut, Json.mkObj fields :: shown)

/-- Errors first, then warnings: what is cut is what matters least. Also whether an error
or a warning is missing. -/
def render (bytes : Nat) (messages : List Message) : IO (Json × Bool) := do
  let (left, cutErrors, errors) ← renderSeverity .error bytes messages
  let (left, cutWarnings, warnings) ← renderSeverity .warning left messages
  let (_, _, others) ← renderSeverity .information left messages
  return (strings (join errors (join warnings others)), cutErrors || cutWarnings)

def firstError : List Message → IO String
  | [] => return "unknown"
  | message :: rest =>
    match message.severity with
    | .error => message.data.toString
    | _ => firstError rest
