/-! ### A command in a session

`FDJAX "{\"verb\": …, \"nonce\": …, …}"` logs one message: the nonce, a space, and a JSON
object. -/

elab "FDJAX" source:str : command => do
  let request := (Json.parse source.getString).toOption.getD .null
  let fields ← match text request "verb" with
    | "header" => header request
    | "statement" => statement request
    | _ => check request
  let message : Message := {
    fileName := "", pos := ⟨1, 0⟩, severity := .information
    data := s!"{text request "nonce"} {(Json.mkObj fields).compress}" }
  modify fun session => { session with messages := session.messages.add message }

end _FDJAX
