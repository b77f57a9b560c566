/-
A checker of proofs and files: three verbs from a JSON request to the fields of an answer.
Two drivers run it: a command in a Lean session that is seen through messages only, and a
program that `lean --run` interprets. Either replaces `FDJAX` by a word of its own.

Untrusted text is only ever in a string. It is parsed and elaborated here, on a copy of
the state that is dropped afterwards, so it reaches neither our text nor our state.

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

/-- The same text with `\n` at the ends of lines, as Lean's own reader has it. -/
def withPlainLines (text : String) : String := by
  first | exact text.crlfToLf | exact text

/-- Whether whoever runs us has ended the time, where this Lean lets them. -/
def isCancelled : CommandElabM Bool := by
  first
  | exact do
      match (← read).cancelTk? with
      | some token => token.isSet
      | none => return false
  | exact return false

/-- The environment with a declaration that the kernel has checked. -/
def kernelAdd (env : Environment) (declaration : Declaration) : Option Environment := by
  first
  | exact match env.addDeclCore 0 declaration none with
      | .ok env => some env
      | .error _ => none
  | exact match env.addDecl {} declaration with
      | .ok env => some env
      | .error _ => none

/-! ### Requests and answers -/

abbrev Fields := List (String × Json)

def join {α : Type} : List α → List α → List α
  | [], right => right
  | first :: rest, right => first :: join rest right

def text (json : Json) (key : String) : String :=
  match json.getObjVal? key with
  | .ok (.str value) => withPlainLines value
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

/-- A name as text, such that no invented name reads like one of the library's: a part
with a dot or a comma keeps its guillemets. -/
partial def nameText : Name → String
  | .anonymous => ""
  | .str prefix? part => join prefix? (if plain part.toList then part else s!"«{part}»")
  | .num prefix? part => join prefix? (toString part)
where
  join (prefix? : Name) (part : String) : String :=
    if prefix?.isAnonymous then part else s!"{nameText prefix?}.{part}"
  plain : List Char → Bool
    | [] => true
    | c :: rest =>
      c != '.' && c != ',' && c != '«' && c != '»' && !c.isWhitespace && plain rest

def strings (values : List Json) : Json := .arr values.toArray

/-! ### Messages -/

def severityText : MessageSeverity → String
  | .error => "error"
  | .warning => "warning"
  | .information => "information"

def position (line column : String) (pos : Position) : Fields :=
  [(line, .num pos.line), (column, .num pos.column)]

def isShown (severity : MessageSeverity) (message : Message) : Bool :=
  match severity, message.severity with
  | .error, .error => true
  | .warning, .warning | .information, .information => !isSilent message
  | _, _ => false

/-- The longest prefix of whole characters within a number of UTF-8 bytes. -/
partial def cut (text : String) (bytes : Nat) : String :=
  if text.utf8ByteSize ≤ bytes then text
  else match String.fromUTF8? (text.toUTF8.extract 0 bytes) with
    | some start => start
    | none => cut text (bytes - 1)

/-- The messages of one severity until `left` bytes are used up: what is left then, and
whether some are missing. -/
def renderSeverity (severity : MessageSeverity) (left : Nat) :
    List Message → IO (Nat × Bool × List Json)
  | [] => return (left, false, [])
  | message :: rest => do
    unless isShown severity message do
      return ← renderSeverity severity left rest
    if left == 0 then return (0, true, [])
    let shown := cut (← message.data.toString) left
    let span := join (position "line" "column" message.pos) (match message.endPos with
      | some pos => position "end_line" "end_column" pos
      | none => [])
    let fields := ("severity", Json.str (severityText severity))
      :: ("kind", .str (nameText (kindOf message))) :: ("text", .str shown) :: span
    let (left, isCut, others) ← renderSeverity severity (left - shown.utf8ByteSize) rest
    return (left, isCut, Json.mkObj fields :: others)

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

/-- An error of our own about a text as a whole. -/
def complaint (text : String) : Message :=
  { fileName := "<input>", pos := ⟨1, 0⟩, severity := .error, data := text }
