// Server-Sent Events (HTML standard, section 9.2.6) as text arrives. EventSource will not do: it gives up at the
// first refusal, and an access token that is over is one.

export interface Message {
  id: string
  data: string
}

/** Cuts a stream of text into messages; keeps what is not complete yet. */
export class SseParser {
  #rest = ''

  push(text: string): Message[] {
    const blocks = (this.#rest + text).replaceAll('\r\n', '\n').split('\n\n')
    this.#rest = blocks.pop() ?? ''
    return blocks.map(parse).filter((message) => message !== undefined)
  }
}

function parse(block: string): Message | undefined {
  let id = ''
  const data: string[] = []
  for (const line of block.split('\n')) {
    const colon = line.indexOf(':')
    if (colon <= 0) continue
    const value = line.slice(colon + 1).replace(/^ /, '')
    if (line.startsWith('id:')) id = value
    if (line.startsWith('data:')) data.push(value)
  }
  return data.length > 0 ? { id, data: data.join('\n') } : undefined
}
