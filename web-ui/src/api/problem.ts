import type { components } from './schema'

export type Problem = components['schemas']['Problem']

/** A refusal of the API, in its own words. */
export class ApiProblem extends Error {
  readonly problem: Problem

  constructor(problem: Problem) {
    super(problem.detail ?? problem.title)
    this.name = 'ApiProblem'
    this.problem = problem
  }
}

/** What an answer that is no success says; an answer that does not come from the API gets words of ours. */
export async function problemOf(response: Response): Promise<ApiProblem> {
  const type = response.headers.get('content-type') ?? ''
  const body: unknown = type.includes('json') ? await response.json().catch(() => null) : null
  if (isProblem(body)) return new ApiProblem(body)
  return new ApiProblem({
    type: 'about:blank',
    code: 'no_answer',
    title: `The server answered with ${response.status} and nothing that could be read`,
    status: response.status,
    request_id: response.headers.get('x-request-id') ?? '',
  })
}

function isProblem(body: unknown): body is Problem {
  return typeof body === 'object' && body !== null && 'code' in body && 'title' in body
}

/** The messages of a problem by the field that they are about: `/volumes/0/size_gib` is about `volumes`. */
export function fieldErrors(problem: Problem | undefined): Record<string, string> {
  const byField: Record<string, string> = {}
  for (const { pointer, message } of problem?.errors ?? []) {
    const [, field = '', ...rest] = pointer.split('/').map(unescapePointer)
    const text = rest.length > 0 ? `${rest.join('/')}: ${message}` : message
    byField[field] = byField[field] ? `${byField[field]}; ${text}` : text
  }
  return byField
}

function unescapePointer(segment: string): string {
  return segment.replaceAll('~1', '/').replaceAll('~0', '~')
}

/** What went wrong, as a problem, whatever was thrown. */
export function asProblem(error: unknown): Problem {
  if (error instanceof ApiProblem) return error.problem
  return {
    type: 'about:blank',
    code: 'unreachable',
    title: 'The server does not answer',
    detail: 'Check the connection; this page tries again by itself.',
    status: 0,
    request_id: '',
  }
}
