// Keys as VNC sends them: a keysym, which is what is meant, and the code of the key on a US keyboard, which is what
// is pressed. QEMU takes the latter.

export type Key = readonly [keysym: number, code: string]

const SHIFT: Key = [0xffe1, 'ShiftLeft']
const CONTROL: Key = [0xffe3, 'ControlLeft']
const ALT: Key = [0xffe9, 'AltLeft']
const SUPER: Key = [0xffeb, 'MetaLeft']

const functionKey = (number: number): Key => [0xffbd + number, `F${number}`]

/** Chords that a browser or its system keeps to itself. */
export const CHORDS: readonly { name: string; keys: readonly Key[] }[] = [
  { name: 'Ctrl Alt Delete', keys: [CONTROL, ALT, [0xffff, 'Delete']] },
  { name: 'Ctrl Alt Backspace', keys: [CONTROL, ALT, [0xff08, 'Backspace']] },
  ...[1, 2, 3, 7].map((number) => ({ name: `Ctrl Alt F${number}`, keys: [CONTROL, ALT, functionKey(number)] })),
  { name: 'Alt Tab', keys: [ALT, [0xff09, 'Tab']] },
  { name: 'Alt F4', keys: [ALT, functionKey(4)] },
  { name: 'Super', keys: [SUPER] },
  { name: 'Esc', keys: [[0xff1b, 'Escape']] },
  { name: 'Print Screen', keys: [[0xff61, 'PrintScreen']] },
]

const PLAIN = '`1234567890-=[]\\;\',./ \n\t'
const SHIFTED = '~!@#$%^&*()_+{}|:"<>?'
const CODES = [
  'Backquote', ...'1234567890'.split('').map((digit) => `Digit${digit}`), 'Minus', 'Equal', 'BracketLeft', 'BracketRight',
  'Backslash', 'Semicolon', 'Quote', 'Comma', 'Period', 'Slash', 'Space', 'Enter', 'Tab',
]

/** The keys that write a character on a US keyboard, in the order they go down; none if there are none. */
export function keysOf(character: string): readonly Key[] {
  if (character === '\n') return [[0xff0d, 'Enter']]
  if (character === '\t') return [[0xff09, 'Tab']]
  const keysym = character.charCodeAt(0)
  if (/^[a-z]$/i.test(character)) {
    const key: Key = [keysym, `Key${character.toUpperCase()}`]
    return character === character.toLowerCase() ? [key] : [SHIFT, key]
  }
  const plain = PLAIN.indexOf(character)
  if (plain >= 0) return [[keysym, CODES[plain] ?? '']]
  const shifted = SHIFTED.indexOf(character)
  return shifted >= 0 ? [SHIFT, [keysym, CODES[shifted] ?? '']] : []
}

/** Text as keys, with the characters that no key writes. */
export function typed(text: string): { strokes: (readonly Key[])[]; missing: string[] } {
  const characters = [...text.replaceAll('\r\n', '\n')]
  const all = characters.map((character) => [character, keysOf(character)] as const)
  return {
    strokes: all.map(([, keys]) => keys).filter((keys) => keys.length > 0),
    missing: [...new Set(all.filter(([, keys]) => keys.length === 0).map(([character]) => character))],
  }
}
