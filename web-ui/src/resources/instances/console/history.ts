/**
 * What of the log comes before the live bytes: it may have been read after the first of them were written, and then
 * ends with what they begin with.
 */
export function before(log: Uint8Array, live: Uint8Array): Uint8Array {
  for (let length = Math.min(log.length, live.length); length > 0; length -= 1) {
    const start = log.length - length
    let same = 0
    while (same < length && log[start + same] === live[same]) same += 1
    if (same === length) return log.subarray(0, start)
  }
  return log
}
