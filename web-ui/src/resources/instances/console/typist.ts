import type { Key } from './keys'

type Stroke = readonly Key[]

/** Between two strokes: a guest's keyboard holds few. */
const STROKE_MS = 12

/** Presses one stroke after the other, and what is wanted meanwhile after that. */
export class Typist {
  readonly #press: (stroke: Stroke) => void
  #left: Stroke[] = []
  #timer: ReturnType<typeof setInterval> | undefined

  constructor(press: (stroke: Stroke) => void) {
    this.#press = press
  }

  type(strokes: readonly Stroke[]): void {
    this.#left.push(...strokes)
    this.#timer ??= setInterval(() => {
      const stroke = this.#left.shift()
      if (stroke) this.#press(stroke)
      if (this.#left.length === 0) this.stop()
    }, STROKE_MS)
  }

  /** Presses nothing more. How many strokes were left. */
  stop(): number {
    clearInterval(this.#timer)
    this.#timer = undefined
    return this.#left.splice(0).length
  }
}
