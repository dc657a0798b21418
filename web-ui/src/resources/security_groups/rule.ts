import type { Schemas } from '../../api/client'

type Rule = Schemas['SecurityGroupRule']

/** The ports of a rule in few words. */
export function portsOf(rule: Pick<Rule, 'port_first' | 'port_last'>): string {
  if (rule.port_first === undefined || rule.port_first === null) return '—'
  return rule.port_last === rule.port_first ? String(rule.port_first) : `${rule.port_first}–${rule.port_last}`
}

/** Whether everybody is at the other end. */
export const isOpen = (rule: Rule) => rule.direction === 'ingress' && (rule.remote_cidr === '0.0.0.0/0' || rule.remote_cidr === '::/0')
