import { Alert, Button, FileButton, Group, Progress, Stack, Text } from '@mantine/core'
import { useQueryClient } from '@tanstack/react-query'
import { useRef, useState } from 'react'
import { call, fill, type Schemas } from '../../api/client'
import { problemOf } from '../../api/problem'
import { sessionFetch } from '../../api/session'
import { ProblemAlert } from '../../parts/ProblemAlert'
import { bytes } from '../../parts/format'
import { t } from '../../strings'

/** As much is sent at once; what is lost with a connection is at most that. */
const PART_BYTES = 8 * 1024 * 1024

/** Sends a file in parts. After a broken connection, or a pause, it goes on where the server has got to. */
export function Upload({ image, project }: { image: Schemas['Image']; project: string }) {
  const client = useQueryClient()
  const [file, setFile] = useState<File | null>(null)
  const [sent, setSent] = useState(0)
  const [running, setRunning] = useState(false)
  const [finished, setFinished] = useState(false)
  const [error, setError] = useState<unknown>()
  const upload = useRef<Schemas['ImageUpload'] | undefined>(undefined)
  const stop = useRef(false)
  const base = fill('/v1/projects/{project}/images/{id}/uploads', { project, id: image.id })

  const run = async (chosen: File) => {
    setRunning(true)
    setError(undefined)
    stop.current = false
    try {
      upload.current = upload.current
        ? await call('GET', `${base}/${upload.current.id}`)
        : await call('POST', base, { body: { size_bytes: chosen.size } })
      const { id } = upload.current as { id: string }
      let offset = offsetOf(upload.current)
      while (offset < chosen.size && !stop.current) {
        const part = chosen.slice(offset, offset + PART_BYTES)
        const response = await sessionFetch(`${base}/${id}`, { method: 'PATCH', body: part, headers: { 'upload-offset': String(offset), 'content-type': 'application/octet-stream' } })
        if (!response.ok) throw await problemOf(response)
        offset += part.size
        setSent(offset)
      }
      if (offset >= chosen.size) {
        setFinished(true)
        await call('POST', `${base}/${id}/finish`, { body: {} })
        void client.invalidateQueries({ predicate: ({ queryKey }) => queryKey.includes('images') })
      }
    } catch (problem) {
      setError(problem)
    } finally {
      setRunning(false)
    }
  }
  const choose = (chosen: File | null) => {
    if (!chosen) return
    setFile(chosen)
    setSent(0)
    upload.current = undefined
    void run(chosen)
  }
  return (
    <Alert variant="light" title={t.image.waiting}>
      <Stack gap="sm">
        {file && <Progress value={(sent / Math.max(1, file.size)) * 100} aria-label={file.name} animated={running} />}
        {file && <Text size="sm" role="status">{finished ? t.image.finished : `${file.name}: ${t.image.sent(bytes(sent), bytes(file.size))}`}</Text>}
        <ProblemAlert error={error} />
        <Group>
          {!running && !finished && <FileButton onChange={choose}>{(props) => <Button {...props}>{t.image.choose}</Button>}</FileButton>}
          {running && <Button variant="default" onClick={() => { stop.current = true }}>{t.image.pause}</Button>}
          {!running && file && !finished && <Button variant="default" onClick={() => void run(file)}>{t.image.resume}</Button>}
        </Group>
      </Stack>
    </Alert>
  )
}

function offsetOf(upload: Schemas['ImageUpload'] | undefined): number {
  return upload?.offset_bytes ?? 0
}
