/-! ### What a proof or a file may contain -/

structure Rules where
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
  /-- Only in files. -/
  commands : Option NameSet
  attributes : NameSet

def nameSet (name : String → Name) : List String → NameSet
  | [] => {}
  | text :: rest => (nameSet name rest).insert (name text)

/-- Syntax of what Lean would compile, where it cannot be told not to. -/
def codeKinds : List String :=
  match withoutCode (α := Unit) with
  | some _ => []
  | none => [
    "Lean.Parser.Term.letRecDecl", "Lean.Parser.Command.definition",
    "Lean.Parser.Command.abbrev", "Lean.Parser.Command.instance",
    "Lean.Parser.Command.structure", "Lean.Parser.Command.inductive",
    "Lean.Parser.Command.classInductive", "Lean.Parser.Command.opaque",
    "Lean.Parser.Tactic.config", "Lean.Parser.Tactic.valConfigItem",
    "Lean.Parser.Tactic.posConfigItem", "Lean.Parser.Tactic.negConfigItem"]

def rulesOf (policy : Json) (isFile : Bool) : Rules where
  options := join (texts policy "options") (if isFile then texts policy "file_options" else [])
  raised := texts policy "raised"
  kinds := nameSet String.toName
    (join codeKinds
      (join (texts policy "kinds") (if isFile then [] else texts policy "proof_kinds")))
  words := nameSet .mkSimple (texts policy "words")
  reserved := texts policy "reserved"
  constants := nameSet String.toName (texts policy "constants")
  configuration := texts policy "configuration"
  data := {
    functions := nameSet String.toName (texts policy "functions")
    growing := nameSet String.toName (texts policy "growing")
    largest := number policy "largest"
    unlike := nameSet String.toName (texts policy "unlike")
    nodes := number policy "nodes" }
  commands := if isFile then some (nameSet String.toName (texts policy "commands")) else none
  attributes := nameSet .mkSimple (if isFile then texts policy "attributes" else [])

def allowsOption (name : String) : List String → Bool
  | [] => false
  | allowed :: rest =>
    name == allowed || (allowed.endsWith "." && name.startsWith allowed)
      || allowsOption name rest

def beginsWith (part : String) : List String → Bool
  | [] => false
  | start :: rest => part.startsWith start || beginsWith part rest

def refusesPart (rules : Rules) : Name → Bool
  | .str rest part => rules.words.contains (.mkSimple part)
    || beginsWith part rules.reserved || refusesPart rules rest
  | .num rest _ => refusesPart rules rest
  | .anonymous => false

def hasPart (text part : String) : Bool :=
  match text.splitOn part with
  | [_] => false
  | _ => true

def isConfiguration (kind : Name) : Bool := hasPart (nameText kind).toLower "onfig"

def isListed (text : String) : List String → Bool
  | [] => false
  | first :: rest => text == first || isListed text rest

def onlyDigits : List Char → Bool
  | [] => true
  | first :: rest => hasPart "0123456789" (String.singleton first) && onlyDigits rest

/-- Whether a token is a number of four digits or more. -/
def isThousands (token : String) : Bool :=
  match token.toList with
  | first :: second :: third :: fourth :: rest =>
    first != '0' && onlyDigits (first :: second :: third :: fourth :: rest)
  | _ => false

/-- Whether a node may be part of a configuration. -/
def isOfConfigurations (rules : Rules) (kind : Name) : Bool :=
  let text := nameText kind
  hasPart text "onfig" || hasPart text "structInst" || isListed text rules.configuration

def isConfigurationKey (kind : Name) (index : Nat) : Bool :=
  match kind with
  | .str _ last =>
    isListed last ["posConfigItem", "negConfigItem", "structInstLVal", "dotIdent"]
      || (last == "valConfigItem" && index == 1)
  | _ => false

/-- Why an identifier may not occur, empty when it may. A tactic's configuration is
compiled and run: it holds keys, literals and a few constants only. -/
def refuseIdentifier (rules : Rules) (kind : Name) (index : Nat)
    (isOption inConfiguration : Bool) (name : Name) : String :=
  let shown := nameText name
  if isOption then
    if allowsOption shown rules.options then "" else s!"set_option {shown}"
  else if refusesPart rules name then shown
  else if inConfiguration && !isConfigurationKey kind index
      && !name.isAnonymous && !rules.constants.contains name then
    s!"{shown} in a configuration"
  else ""

partial def firstToken : Syntax → String
  | .node _ _ children => go children.toList
  | .atom _ value => value
  | .ident _ _ value _ => nameText value
  | .missing => ""
where
  go : List Syntax → String
    | first :: _ => firstToken first
    | [] => ""

def refuseNode (rules : Rules) (node : Syntax) (inConfiguration : Bool) : String :=
  let kind := node.getKind
  if rules.kinds.contains kind then nameText kind
  else if inConfiguration && !isOfConfigurations rules kind then
    s!"{nameText kind} in a configuration"
  else if kind == ``Parser.Term.attrInstance
      && !rules.attributes.contains (.mkSimple (firstToken (node.getArg 1))) then
    s!"the attribute {firstToken (node.getArg 1)}"
  else ""

mutual
/-- Why a syntax tree may not be elaborated, empty when it may. -/
partial def refuseTree (rules : Rules) (outside : Bool) (tree : Syntax) : String :=
  match tree with
  | .node _ kind children =>
    let inConfiguration := outside || isConfiguration kind
    let refused := refuseNode rules tree inConfiguration
    if refused != "" then refused
    else refuseTrees rules kind inConfiguration 0 "" children.toList
  | _ => ""

partial def refuseTrees (rules : Rules) (kind : Name) (inConfiguration : Bool)
    (index : Nat) (before : String) : List Syntax → String
  | [] => ""
  | child :: rest =>
    let isOption := before == "set_option"
    let isRaised := isListed before rules.raised
    let value := if isRaised then firstToken child else ""
    let refused := if value != "" && !isThousands value then "a set_option to less than 1000"
    else match child with
      | .ident _ _ name _ =>
        refuseIdentifier rules kind index isOption inConfiguration name
      | _ => refuseTree rules inConfiguration child
    let before := match child with
      | .atom _ value => value
      | .ident _ _ name _ => if isOption then nameText name else ""
      -- An empty node lies between an option and its value.
      | _ => if isRaised && value == "" then before else ""
    if refused != "" then refused
    else refuseTrees rules kind inConfiguration (index + 1) before rest
end

/-- A proof is the value of a declaration; what is before it is trusted. -/
def refuseProof (rules : Rules) (value : List Syntax) : String :=
  refuseTrees rules nullKind false 0 "" value

/-- Commands come alone, before and after `in`, and inside `mutual`. -/
partial def refuseKind (allowed : NameSet) (command : Syntax) : String :=
  match command with
  | .node _ kind _ =>
    if !allowed.contains kind then s!"the command {firstToken command}"
    else if kind == ``Parser.Command.in then
      go [command.getArg 0, command.getArg 2]
    else if kind == ``Parser.Command.mutual then go (command.getArg 1).getArgs.toList
    else ""
  | _ => ""
where
  go : List Syntax → String
    | [] => ""
    | first :: rest =>
      let refused := refuseKind allowed first
      if refused != "" then refused else go rest

def refuseCommand (rules : Rules) (command : Syntax) : String :=
  let refused := refuseKind (rules.commands.getD {}) command
  if refused != "" then refused else refuseTree rules false command
