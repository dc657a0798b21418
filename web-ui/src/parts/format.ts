const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** `1536` as `1.5 KiB`. */
export function bytes(value: number): string {
  let amount = value
  let unit = 0
  while (amount >= 1024 && unit < UNITS.length - 1) {
    amount /= 1024
    unit += 1
  }
  const digits = amount < 10 && !Number.isInteger(amount) ? 1 : 0
  return `${amount.toFixed(digits)} ${UNITS[unit]}`
}

export const mebibytes = (value: number) => bytes(value * 1024 * 1024)
export const gibibytes = (value: number) => bytes(value * 1024 * 1024 * 1024)

/** What of a resource counts how: `memory_mib` 2048 is `2 GiB`. */
export function amount(resource: string, value: number): string {
  if (resource.endsWith('_mib')) return mebibytes(value)
  if (resource.endsWith('_gib')) return gibibytes(value)
  return value.toLocaleString('en')
}

/** How long ago, or from now on, in few words; the exact time belongs beside it. */
export function ago(then: Date, now: Date): string {
  const passed = Math.round((now.getTime() - then.getTime()) / 1000)
  const seconds = Math.abs(passed)
  if (seconds < 5) return 'now'
  const [size, unit] = ([[86_400, 'd'], [3600, 'h'], [60, 'min']] as const).find(([size]) => seconds >= size) ?? [1, 's']
  const time = `${Math.floor(seconds / size)} ${unit}`
  return passed < 0 ? `in ${time}` : `${time} ago`
}

/** A time in the reader's zone, which is named. */
export function exactTime(date: Date): string {
  return date.toLocaleString('en-GB', {
    year: 'numeric', month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', second: '2-digit', timeZoneName: 'short',
  })
}

/** A time as `<input type="datetime-local">` has it, in the reader's zone; nothing for none. */
export function localTime(at: string | null | undefined): string {
  if (!at) return ''
  const date = new Date(at)
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16)
}

/** Between two steps: `120 ms`, `3.4 s`, `2 min 5 s`. */
export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`
}

/** Quotes an argument for a shell. */
export function shellQuote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`
}

/**
 * What a guest wrote, as text that a page can show: sequences that steer a terminal are left out, and so is
 * every other control character, also those that turn the direction of reading.
 */
export function consoleText(raw: string): string {
  return raw
    .replace(/\u001b(?:\[[0-?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[PX^_][^\u001b]*(?:\u001b\\)?|[ -/]*[0-~])/g, '')
    .replaceAll('\r\n', '\n')
    .replace(/^.*\r(?=[^\n])/gm, '')
    .replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, '')
}
