import { Alert, Button, FileButton, Group, Progress, Stack, Text, Title } from '@mantine/core'
import { useQuery, useQueryClient } from '@tanstack/react-query'
import { useRef, useState } from 'react'
import { call, fill, type Schemas } from '../../api/client'
import { problemOf } from '../../api/problem'
import { allRows } from '../../api/rows'
import { sessionFetch } from '../../api/session'
import { bytes } from '../../parts/format'
import { ProblemAlert } from '../../parts/ProblemAlert'
import { Remove } from '../../parts/Remove'
import { Time } from '../../parts/Time'
import { t } from '../../strings'

type Begun = Schemas['ImageUpload']

/** As much is sent at once; what is lost with a connection is at most that. */
const PART_BYTES = 8 * 1024 * 1024

/** Sends a file in parts. After a broken connection, a pause, or another day, it goes on where the server has got to. */
export function Upload({ image, project }: { image: Schemas['Image']; project: string }) {
  const client = useQueryClient()
  const [file, setFile] = useState<File | null>(null)
  const [sent, setSent] = useState(0)
  const [running, setRunning] = useState(false)
  const [finished, setFinished] = useState(false)
  const [error, setError] = useState<unknown>()
  const [own, setOwn] = useState<string | undefined>()
  const stop = useRef(false)
  const base = fill('/v1/projects/{project}/images/{id}/uploads', { project, id: image.id })
  const begun = useQuery({ queryKey: ['projects', project, 'images', image.id, 'uploads'], queryFn: ({ signal }) => allRows<Begun>(base, signal), retry: false })

  const run = async (chosen: File, before: string | undefined) => {
    setFile(chosen)
    setRunning(true)
    setError(undefined)
    stop.current = false
    try {
      const upload = before ? await call<Begun>('GET', `${base}/${before}`) : await call<Begun>('POST', base, { body: { size_bytes: chosen.size } })
      setOwn(upload.id)
      let offset = upload.offset_bytes
      setSent(offset)
      while (offset < chosen.size && !stop.current) {
        const part = chosen.slice(offset, offset + PART_BYTES)
        const response = await sessionFetch(`${base}/${upload.id}`, { method: 'PATCH', body: part, headers: { 'upload-offset': String(offset), 'content-type': 'application/octet-stream' } })
        if (!response.ok) throw await problemOf(response)
        offset += part.size
        setSent(offset)
      }
      if (offset >= chosen.size) {
        await call('POST', `${base}/${upload.id}/finish`, { body: {} })
        setFinished(true)
        void client.invalidateQueries({ predicate: ({ queryKey }) => queryKey.includes('images') })
      }
    } catch (problem) {
      setError(problem)
    } finally {
      setRunning(false)
      void begun.refetch()
    }
  }
  const others = (begun.data ?? []).filter(({ id }) => id !== own)
  return (
    <Alert variant="light" title={t.image.waiting}>
      <Stack gap="sm">
        {file && <Progress value={(sent / Math.max(1, file.size)) * 100} aria-label={file.name} animated={running} />}
        {file && <Text size="sm" role="status">{finished ? t.image.finished : `${file.name}: ${t.image.sent(bytes(sent), bytes(file.size))}`}</Text>}
        <ProblemAlert error={error} />
        <Group>
          {!running && !finished && <FileButton onChange={(chosen) => { if (chosen) { setOwn(undefined); void run(chosen, undefined) } }}>{(props) => <Button {...props}>{t.image.choose}</Button>}</FileButton>}
          {running && <Button variant="default" onClick={() => { stop.current = true }}>{t.image.pause}</Button>}
          {!running && file && !finished && <Button variant="default" onClick={() => void run(file, own)}>{t.image.resume}</Button>}
        </Group>
        {!running && !finished && others.length > 0 && (
          <>
            <Title order={2} size="h6">{t.image.open}</Title>
            <Text size="sm" c="dimmed">{t.image.openHint}</Text>
            {others.map((upload) => <BegunBefore key={upload.id} upload={upload} path={`${base}/${upload.id}`} goOn={(chosen) => void run(chosen, upload.id)} gone={() => void begun.refetch()} />)}
          </>
        )}
      </Stack>
    </Alert>
  )
}

/** An upload that somebody began: it goes on with the same file, or is given up. */
function BegunBefore({ upload, path, goOn, gone }: { upload: Begun; path: string; goOn: (file: File) => void; gone: () => void }) {
  const [other, setOther] = useState(false)
  const [asking, setAsking] = useState(false)
  const size = bytes(upload.size_bytes)
  const choose = (file: File | null) => {
    if (!file) return
    setOther(file.size !== upload.size_bytes)
    if (file.size === upload.size_bytes) goOn(file)
  }
  const abandon = async () => {
    await call('DELETE', path)
    gone()
  }
  return (
    <Stack gap={4}>
      <Group gap="sm">
        <Text size="sm" span>{t.image.sent(bytes(upload.offset_bytes), size)}, <Time at={upload.created_at} /></Text>
        <FileButton onChange={choose}>{(props) => <Button {...props} size="compact-sm" variant="default" aria-label={`${t.image.resume}: ${size}`}>{t.image.resume}</Button>}</FileButton>
        <Button size="compact-sm" variant="subtle" color="red" aria-label={`${t.image.abandon}: ${size}`} onClick={() => setAsking(true)}>{t.image.abandon}</Button>
      </Group>
      {other && <Text size="sm" c="red" role="alert">{t.image.other(size)}</Text>}
      <Remove names={[t.image.upload(size)]} one="" many="" opened={asking} close={() => setAsking(false)} plain button={t.image.abandon} remove={abandon}><Text size="sm">{t.image.abandonWarning}</Text></Remove>
    </Stack>
  )
}
