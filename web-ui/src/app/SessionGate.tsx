import { Center, Loader } from '@mantine/core'
import { useQuery, useQueryClient } from '@tanstack/react-query'
import { createContext, useCallback, useContext, useEffect, useState, type ReactNode } from 'react'
import { api, data, type Schemas } from '../api/client'
import { asProblem } from '../api/problem'
import { announceSessionEnd, onPasswordChangeRequired, onSessionEnd, signOut } from '../api/session'
import { ProblemAlert } from '../parts/ProblemAlert'
import { t } from '../strings'
import { useIdle } from './idle'
import './SessionGate.css'
import { ChoosePassword, SignIn } from './SignIn'

export type Me = Schemas['Me']

const MeContext = createContext<Me | undefined>(undefined)

export function useMe(): Me {
  const me = useContext(MeContext)
  if (!me) throw new Error('only below SessionGate')
  return me
}

/**
 * Shows its children to whoever has signed in, and has a password that nobody else knows. When the session ends they stay where they are, out of sight: the
 * same user goes on in the middle of a form; another one begins anew.
 */
export function SessionGate({ children }: { children: ReactNode }) {
  const client = useQueryClient()
  const [ended, setEnded] = useState<string | undefined>()
  const [known, setKnown] = useState<Me | undefined>()
  const me = useQuery({ queryKey: ['me'], queryFn: () => data(api.GET('/v1/me')), retry: (failures, error) => asProblem(error).status === 0 && failures < 5 })
  // The password that was typed, until another one is chosen in its place.
  const [typed, setTyped] = useState<string | undefined>()
  const restricted = me.data?.password_change_required === true
  const unknown = me.error !== null && asProblem(me.error).status === 401

  useEffect(() => onSessionEnd(() => setEnded((before) => before ?? t.signIn.ended)), [])
  useEffect(() => {
    if (me.data && !me.data.password_change_required) setKnown(me.data)
  }, [me.data])
  useEffect(() => onPasswordChangeRequired(() => {
    client.setQueryData<Me>(['me'], (before) => before && { ...before, password_change_required: true })
  }), [client])
  useIdle((known !== undefined || restricted) && ended === undefined, useCallback(() => {
    setEnded(t.signIn.idle)
    void signOut()
  }, []))

  const signedIn = async (password?: string) => {
    const next = await client.fetchQuery({ queryKey: ['me'], queryFn: () => data(api.GET('/v1/me')), staleTime: 0 })
    if (known && next.id !== known.id) {
      location.assign('/')
      return
    }
    setEnded(undefined)
    setTyped(next.password_change_required ? password : undefined)
    if (next.password_change_required) return
    setKnown(next)
    void client.invalidateQueries()
  }

  const away = ended !== undefined || (unknown && !known)
  const choosing = restricted && !away ? me.data : undefined
  const hidden = away || choosing !== undefined
  useEffect(() => void document.body.toggleAttribute('data-away', hidden), [hidden])
  return (
    <>
      {away && <SignIn notice={known ? ended : undefined} username={known?.name} onDone={signedIn} />}
      {choosing && <ChoosePassword user={choosing} current={typed} onDone={() => signedIn()} onLeave={() => void leave()} />}
      {!known && !hidden && (
        <Center h="100dvh">{me.error ? <ProblemAlert error={me.error} retry={() => void me.refetch()} /> : <Loader />}</Center>
      )}
      {known && (
        <MeContext value={known}>
          <div hidden={hidden} inert={hidden}>{children}</div>
        </MeContext>
      )}
    </>
  )
}

/** Signs out on purpose: nothing is kept. */
export async function leave(): Promise<void> {
  await signOut()
  announceSessionEnd()
  location.assign('/')
}
