# Flattens JSON: prints "<top-level key> TAB <string or number>" for every value beneath that key.
# Values are made safe to print on one line: control characters become spaces.
# Exits 1 when the text is not one JSON object.

{ text = text $0 "\n" }

END {
  at = 1
  skip_space()
  if (substr(text, at, 1) != "{") fail("not an object")
  value("")
  skip_space()
  if (at <= length(text)) fail("text after the object")
  printf "%s", found
}

function fail(why) {
  print "metadata: " why " at character " at > "/dev/stderr"
  # exit inside END ends the program, so nothing half-read is printed.
  exit 1
}

function skip_space() {
  while (index(" \t\r\n", substr(text, at, 1)) && at <= length(text)) at++
}

function value(key,    first) {
  skip_space()
  first = substr(text, at, 1)
  if (first == "{") members(key)
  else if (first == "[") elements(key)
  else if (first == "\"") found = found key "\t" string() "\n"
  else if (match(substr(text, at), /^(true|false|null|-?[0-9.eE+-]+)/)) {
    if (substr(text, at, RLENGTH) != "null") found = found key "\t" substr(text, at, RLENGTH) "\n"
    at += RLENGTH
  } else fail("no value")
}

function members(key,    name) {
  at++
  skip_space()
  if (substr(text, at, 1) == "}") { at++; return }
  while (1) {
    skip_space()
    if (substr(text, at, 1) != "\"") fail("no member name")
    name = string()
    skip_space()
    if (substr(text, at++, 1) != ":") fail("no colon")
    value(key == "" ? name : key)
    if (!more("}")) return
  }
}

function elements(key) {
  at++
  skip_space()
  if (substr(text, at, 1) == "]") { at++; return }
  while (1) {
    value(key)
    if (!more("]")) return
  }
}

function more(close_with,    mark) {
  skip_space()
  mark = substr(text, at++, 1)
  if (mark == ",") return 1
  if (mark != close_with) fail("no comma or " close_with)
  return 0
}

function string(    out, char) {
  out = ""
  for (at++; at <= length(text); at++) {
    char = substr(text, at, 1)
    if (char == "\"") { at++; return out }
    if (char == "\\") {
      char = substr(text, ++at, 1)
      if (char == "u") {
        # Only plain ASCII is worth decoding here; the rest shows as a question mark.
        char = ascii(substr(text, at + 1, 4))
        at += 4
      } else if (index("nrtbf", char)) char = " "
    } else if (char < " ") char = " "
    out = out char
  }
  fail("an unfinished string")
}

function ascii(hex,    code) {
  code = 16 * (index("0123456789abcdef", tolower(substr(hex, 3, 1))) - 1) \
       + index("0123456789abcdef", tolower(substr(hex, 4, 1))) - 1
  if (substr(hex, 1, 2) != "00" || code > 126) return "?"
  return code < 32 ? " " : sprintf("%c", code)
}
