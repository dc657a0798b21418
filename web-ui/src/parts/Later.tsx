import { Center, Loader } from '@mantine/core'
import { lazy, Suspense, type ComponentType, type ReactNode } from 'react'
import { t } from '../strings'

/** Shows that something is on its way until it is there. */
export const Later = ({ children }: { children: ReactNode }) => <Suspense fallback={<Center p="xl"><Loader aria-label={t.table.loading} /></Center>}>{children}</Suspense>

/** A part that is loaded when it is first shown, and not with the page. */
export function later<P extends object>(load: () => Promise<ComponentType<P>>): ComponentType<P> {
  const Part = lazy(async () => ({ default: await load() })) as unknown as ComponentType<P>
  return (props: P) => <Later><Part {...props} /></Later>
}
