/**
 * What of the log comes before the live bytes: it may have been read after the first of them were written, and then
 * ends with what they begin with. Takes time in proportion to their lengths (Knuth, Morris and Pratt).
 */
export function before(log: Uint8Array, live: Uint8Array): Uint8Array {
  const border = borders(live)
  let matched = 0
  for (const byte of log.subarray(Math.max(0, log.length - live.length))) {
    while (matched > 0 && live[matched] !== byte) matched = border[matched - 1] ?? 0
    if (live[matched] === byte) matched += 1
  }
  return log.subarray(0, log.length - matched)
}

/** For each beginning of these bytes, how much of its end is what it begins with. */
function borders(bytes: Uint8Array): Uint32Array {
  const border = new Uint32Array(bytes.length)
  let matched = 0
  for (let at = 1; at < bytes.length; at += 1) {
    while (matched > 0 && bytes[matched] !== bytes[at]) matched = border[matched - 1] ?? 0
    if (bytes[matched] === bytes[at]) matched += 1
    border[at] = matched
  }
  return border
}
